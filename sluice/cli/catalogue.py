"""`sluice dataset catalogue` and `register`: public datasets, and copies of them on this machine; downloads nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluice.cli import dataset, exits, live, rows, screen
from sluice.cli.options import INTO, Session, command

if TYPE_CHECKING:
    from sluice.catalogue import Entry

EPILOG = """
CHECKED, always without the original's data: `sample` — a test maps invented rows laid out like the original; `layout` —
columns or files were compared with a published card or loader; `none` — written from general knowledge.
"""
USE = {"yes": "allowed", "no": "not allowed", "unclear": "unclear; read the licence"}
ACCESS = {
    "open": "open",
    "registration": "after registration",
    "credentialed": "for credentialed persons, under an agreement on data use",
}
CHECKED = {
    "none": "not at all; written from general knowledge",
    "layout": "columns or files compared with {seen}; not with the original's data",
    "sample": "with invented rows laid out like the original; compared with {seen}; not with the original's data",
}
Entries = Annotated[str, typer.Argument(metavar="ID", help="An id of the catalogue, such as c-eval.")]


def register(app: typer.Typer) -> None:
    """Adds `catalogue` and `register` to the commands of `dataset`."""
    command(app, "catalogue", panel=INTO, epilog=" ".join(EPILOG.split()))(catalogue)
    command(app, "register", panel=INTO)(register_)


def catalogue(
    session: Session,
    id: Annotated[str, typer.Argument(metavar="[ID]", help="Show this one in full.", show_default=False)] = "",
    search: Annotated[str, typer.Option(help="Words in id, name, description, licence or domain.")] = "",
    task_type: Annotated[str, typer.Option(help="Such as sft, dpo, embedding, vqa.")] = "",
    language: Annotated[str, typer.Option(help="Such as en or zh; mul means many.")] = "",
    modality: Annotated[str, typer.Option(help="text, image, audio or video.")] = "",
    domain: Annotated[str, typer.Option(help="Such as medical, finance, reasoning.")] = "",
) -> int:
    """List public datasets that `register` can import from a copy you have, or show one.

    What the licence allows is our reading of it, and no advice: read the licence itself.
    """
    from sluice.catalogue import entries, find
    from sluice.catalogue import search as searched

    if id:
        _show(session, find(id))
        return exits.OK
    _known(entries().values(), task_type=task_type, language=language, modality=modality, domain=domain)
    found = searched(search, task_type=task_type, language=language, modality=modality, domain=domain)
    if session.json:
        for entry in found:
            screen.emit(_plain(entry))
    elif found:
        screen.put(screen.table(found, _columns(narrow=screen.out().width < WIDE)))
        screen.hint(session, f"{len(found)} of {len(entries())}; one in full: sluice dataset catalogue ID")
    else:
        screen.hint(session, "the catalogue has nothing like that; `sluice dataset catalogue` lists all it has")
    return exits.OK


def register_(
    session: Session,
    id: Entries,
    mirror: Annotated[Path, typer.Option("--from", help="The folder that holds the copy.", show_default=False)],
    name: Annotated[
        str, typer.Option(help="The dataset; without it, the id, with the split unless it is the first.")
    ] = "",
    split: Annotated[str, typer.Option(help="Which split; without it, the first that is there.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="At most so many rows; 0 means all.")] = 0,
) -> int:
    """Import a public dataset from a copy on this machine: checked, mapped, uploaded.

    Rows become those of the entry's task type: a multiple-choice question becomes a conversation whose answer is
    the letter, for example. Rows without an answer are left out and counted.

    Nothing is downloaded, and the copy is not changed. While they are sent, the rows lie in a folder of TMPDIR that
    only you can read.
    """
    from tempfile import TemporaryDirectory

    from sluice.catalogue import find
    from sluice.catalogue import mirror as mirrors
    from sluice.catalogue.canonical import write
    from sluice.client import RowsRefused
    from sluice.client.catalogue import named

    entry = find(id)
    found = mirrors.find(entry, mirror.expanduser(), split)
    session.client.recipe(entry.task_type)  # a suite that does not know the task type says so before any work
    name = name or named(entry, found.split)
    with TemporaryDirectory(prefix="sluice-register-") as folder, session.traced("dataset register"):
        path = Path(folder) / f"{entry.id}.jsonl.zst"
        with _mapping(session, entry.id) as progress:
            written = write(entry, found, path, limit, progress)
        try:
            with live.upload_bar(session, entry.id) as sending:
                said = _said_of(session, entry, name)
                beside = found.root if found.layout.media == "files" else None
                version = session.client.datasets.upload(name=name, path=path, assets=beside, progress=sending, **said)
        except RowsRefused as refused:
            return rows.show_refusal(session, refused)
    dataset.show_version(session, version)
    _afterwards(session, entry, found.split, written.left_out)
    return exits.OK


def _said_of(session: Session, entry: Entry, name: str) -> dict[str, Any]:
    """What is said of the dataset; what people have said of one that is there already stays."""
    from kit.rpc.errors import NotFound
    from sluice.client.catalogue import said_of
    from sluice.dataset import v1 as contract

    try:
        return said_of(entry, session.client.datasets.get(name))
    except NotFound:
        return said_of(entry, contract.Dataset())  # the upload makes it


def _afterwards(session: Session, entry: Entry, split: str, left_out: int) -> None:
    if left_out:
        screen.hint(session, f"{left_out} rows without an answer, or otherwise incomplete, were left out")
    others = [each for each in entry.splits if each != split]
    if others:
        screen.hint(session, f"this was the split `{split}`; there are also {', '.join(others)}")
    if entry.commercial_use != "yes":
        screen.hint(session, f"licence: {entry.licence}; commercial use: {USE[entry.commercial_use]}")


WIDE = 100


def _columns(narrow: bool) -> screen.Columns:
    columns: dict[str, Callable[[Any], Any]] = {
        "ID": lambda each: each.id,
        "TASK TYPE": lambda each: each.task_type,
        "LANGUAGE": lambda each: _some(each.languages),
        "LICENCE": lambda each: each.licence,
        "COMMERCIAL": lambda each: each.commercial_use,
        "ACCESS": lambda each: each.access,
        "CHECKED": lambda each: each.verified,
    }
    if narrow:
        del columns["ACCESS"], columns["LICENCE"]
    return columns


def _show(session: Session, entry: Entry) -> None:
    from rich.table import Table

    if session.json:
        screen.emit(_plain(entry))
        return
    rows = {
        "id": entry.id,
        "name": entry.name,
        "about": entry.description,
        "task type": entry.task_type,
        "domain": entry.domain,
        "languages": ", ".join(entry.languages),
        "modalities": ", ".join(entry.modalities),
        "licence": entry.licence,
        "commercial use": USE[entry.commercial_use],
        "access": ACCESS[entry.access],
        "published": entry.source,
        "splits": ", ".join(entry.splits),
        "checked": CHECKED[entry.verified].format(seen=", ".join(entry.seen)),
    }
    made = Table.grid(padding=(0, 3, 0, 0))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for title, value in rows.items():
        made.add_row(title, screen.cell(value))
    screen.put(made)
    screen.put("")
    screen.put(screen.titled("files it looks for", _files(entry), FILES))
    screen.hint(session, f"import a copy: sluice dataset register {entry.id} --from FOLDER")


FILES: screen.Columns = {
    "SPLIT": lambda each: each[0],
    "FORMAT": lambda each: each[1],
    "PATTERN": lambda each: each[2],
    "READS": lambda each: each[3],
}


def _files(entry: Entry) -> list[tuple[str, str, str, str]]:
    return [
        (split, layout.format, " or ".join(layout.patterns(split)), ", ".join(layout.columns))
        for layout in entry.layouts
        for split in layout.splits
    ]


def _plain(entry: Entry) -> dict[str, Any]:
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(entry)
    return {**{name: getattr(entry, name) for name in ("modalities", "access", "verified", "seen")}, **plain}


def _some(languages: list[str]) -> str:
    return ", ".join(languages) if len(languages) <= 2 else f"{languages[0]} +{len(languages) - 1}"


def _known(entries: Any, **given: str) -> None:
    """Raises Invalid for a filter whose word no entry has at all."""
    from kit.rpc.errors import Invalid

    for field, word in given.items():
        there = {each for entry in entries for each in _words(entry, field)}
        if word and word not in there:
            known = ", ".join(sorted(there))
            raise Invalid(f"no entry has the {field.replace('_', ' ')} `{word}`; there are {known}")


def _words(entry: Entry, field: str) -> list[str]:
    found = getattr(entry, {"language": "languages", "modality": "modalities"}.get(field, field))
    return [found] if isinstance(found, str) else list(found)


@contextmanager
def _mapping(session: Session, name: str) -> Iterator[Callable[[int], None]]:
    """A line on stderr that counts rows while they are mapped; nothing where stderr is no terminal, or with --quiet."""
    if session.quiet or session.json or not screen.err().is_terminal:
        yield lambda rows: None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn(f"mapping {name}"), TextColumn("{task.fields[rows]}"))
    with Progress(*columns, console=screen.err(), transient=True) as bar:
        task = bar.add_task("", total=None, rows="")
        yield lambda rows: bar.update(task, rows=f"{words_of(rows)} rows")


def words_of(count: int) -> str:
    """`12 000`."""
    return f"{count:,}".replace(",", " ")
