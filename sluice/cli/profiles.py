"""`sluice dataset stats`, `preview` and `diff`: what is known of the rows of versions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sluice.cli import completion, live, numbers, screen, words
from sluice.cli.options import LOOK, Session, command
from sluice.cli.preview import show_row

if TYPE_CHECKING:
    from sluice.dataset import v1 as dataset

Version = Annotated[
    str,
    typer.Argument(
        metavar="NAME[@N]", help="A version, bank-intents@3; else the newest.", autocompletion=completion.datasets
    ),
]


def add_to(app: typer.Typer) -> None:
    """Adds the commands to those of `sluice dataset`."""
    command(app, "stats", panel=LOOK)(stats)
    command(app, "preview", panel=LOOK)(preview)
    command(app, "diff", panel=LOOK)(diff)


def stats(
    session: Session,
    version: Version,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Also look for rows that repeat others, or leak into train.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write them as a page with plots, too.")] = None,
) -> None:
    """Show what the rows of a version are like, in numbers: splits, lengths, labels, languages, images.

    The first to ask waits while the rows are looked at; what is found is kept.
    """
    datasets = session.client.datasets
    version = datasets.version(version).name
    name = words.brief(version)
    with live.work_bar(session, f"describing {name}") as progress:
        described = datasets.statistics(version, progress=progress)
    repeated = None
    if duplicates:
        with live.work_bar(session, f"looking for repeated rows in {name}") as progress:
            repeated = datasets.duplicates(version, progress=progress)
    if html is not None:
        _write_page(html, name, described, repeated)
    if session.json:
        screen.emit(described)
        if repeated is not None:
            screen.emit(repeated)
    else:
        numbers.show_statistics(name, described)
        if repeated is not None:
            numbers.show_duplicates(name, repeated)
    if html is not None:
        screen.hint(session, f"the page is {html}")
    elif repeated is None:
        screen.hint(session, "--duplicates looks for rows that repeat others, --html FILE makes a page with plots")


def preview(
    session: Session,
    version: Version,
    rows: Annotated[int, typer.Option("-n", "--rows", min=1, max=1000, help="So many rows.")] = 5,
    split: Annotated[str, typer.Option(help="train, validation or test; without it, of all.")] = "",
    start: Annotated[int, typer.Option("--from", min=1, help="The number of the first row, within the split.")] = 1,
    full: Annotated[bool, typer.Option("--full", help="Whole texts instead of their beginnings.")] = False,
) -> None:
    """Show some rows, as people read them."""
    found = session.client.datasets.preview(version, rows, split=split, start=start)
    for number, row in enumerate(found, start):
        if session.json:
            screen.emit(row)
        else:
            show_row(number, row, full=full)
    if not found:
        screen.hint(session, f"there is no row {start}{f' in {split}' if split else ''}")


def diff(
    session: Session,
    base: Annotated[str, typer.Argument(metavar="NAME@1", help="The version before.")],
    version: Annotated[str, typer.Argument(metavar="NAME@2", help="The version after, of the same dataset.")],
) -> None:
    """Show which rows a version has that another of the same dataset has not, and the other way round.

    Rows are the same when they say the same; one that is there more often counts as often.
    """
    with live.work_bar(session, f"comparing {words.brief(base)} with {words.brief(version)}") as progress:
        found = session.client.datasets.diff(base, version, progress=progress)
    if session.json:
        screen.emit(found)
        return
    older, newer = words.brief(found.base_version), words.brief(found.dataset_version)
    numbers.show_difference(older, newer, found)
    for name, change in ((newer, found.added), (older, found.removed)):
        if change.rows:
            screen.hint(session, f"look at one: sluice dataset preview {name} --from {change.first[0]} -n 1")


def _write_page(
    path: Path, name: str, described: dataset.VersionStatistics, repeated: dataset.VersionDuplicates | None
) -> None:
    from kit.rpc.errors import Invalid
    from sluice.client.profiles import page
    from sluice.rows.profile.report import PlotsMissingError

    language = next((os.environ[each] for each in ("LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(each)), "en")
    try:
        path.write_text(page(name, described, repeated, lang=language), "utf-8")
    except PlotsMissingError as error:
        raise Invalid(f"`--html` writes no page: {error}") from error
