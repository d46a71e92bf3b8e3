"""`sluice dataset feed`: rows that come a few at a time, and what becomes of them."""

from __future__ import annotations

import hashlib
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from sluice.cli import completion, exits, rows, screen, words
from sluice.cli import demands as asked
from sluice.cli.options import INTO, Session, command, group

if TYPE_CHECKING:
    from sluice.dataset import v1 as dataset

app = group("feed", "Rows that come a few at a time: gathered, then made a version.")

Name = Annotated[
    str,
    typer.Argument(
        metavar="FEED", help="chest-xray/pacs, or chest-xray for its default feed.", autocompletion=completion.datasets
    ),
]
After = Annotated[str, typer.Option("--after", help="How long a row waits at most, such as 15m or 1d.")]
Rows = Annotated[int, typer.Option("--rows", min=0, help="So many rows are enough for a version.")]
#: RFC 9562 name space of the request ids of files that are pushed.
PUSHES = uuid.UUID("8d5d7a0c-2b0e-4c8e-9a54-0d6f6f2f7f11")


def add_to(datasets: typer.Typer) -> None:
    """Adds the group to `sluice dataset`."""
    datasets.add_typer(app, rich_help_panel=INTO)


@command(app, "create")
def create(
    session: Session,
    feed: Name,
    map: rows.Mapping = None,
    fix: rows.Fix = False,
    on_error: Annotated[
        rows.OnError, typer.Option(help="What becomes of wrong rows; fail: they hold up the others.")
    ] = rows.OnError.quarantine,
    deidentify: asked.Identity = asked.Deidentify.off,
    recognizer: asked.Recognizers = None,
    keep: asked.Keep = "",
    set: asked.Set = None,
    tag_rows: asked.TagRows = None,
    after: After = "1h",
    enough: Rows = 10_000,
) -> None:
    """Make a feed of a dataset that is there."""
    made = session.client.feeds.create(
        feed,
        columns=rows.mapping(map or []),
        fix=fix,
        quarantine=on_error is rows.OnError.quarantine,
        demands=asked.demands(deidentify, recognizer, keep, set, tag_rows, 0, None),
        commit_after_s=words.seconds(after),
        commit_rows=enough,
    )
    screen.fields(session, made, _about(made))
    if not made.columns:
        hint = "its rows are read by their own names; --map says otherwise, here or for what becomes version 1"
        screen.hint(session, hint)
    screen.hint(session, f"hand it rows: sluice dataset feed push {_short(made)} rows.jsonl, or events on NATS")


@command(app, "list")
def list_(
    session: Session,
    dataset: Annotated[
        str, typer.Argument(help="The dataset; without it, all of the project.", autocompletion=completion.datasets)
    ] = "",
) -> None:
    """List feeds: how many rows wait, and what was last made of them."""
    columns: screen.Columns = {
        "FEED": _short,
        "STATE": _state,
        "WAITING": lambda each: each.waiting_rows,
        "TAKEN": lambda each: each.taken_rows,
        "SINCE": lambda each: words.when(each.waiting_since),
        "LAST VERSION": lambda each: words.brief(each.dataset_version),
    }
    found = session.client.feeds.list(dataset)
    screen.listing(session, found, columns, "no feeds yet; `sluice dataset feed create DATASET/NAME` makes one")


@command(app, "show")
def show(session: Session, feed: Name) -> None:
    """Show a feed: its rules, what waits, and why the last upload failed, if it did."""
    found = session.client.feeds.get(feed)
    screen.fields(session, found, _about(found))


@command(app, "update")
def update(
    session: Session,
    feed: Name,
    map: rows.Mapping = None,
    fix: Annotated[bool | None, typer.Option("--fix/--no-fix", help="Make the repairs that are proposed.")] = None,
    on_error: Annotated[rows.OnError | None, typer.Option(help="What becomes of wrong rows.")] = None,
    after: After = "",
    enough: Annotated[int | None, typer.Option("--rows", min=1, help="So many rows are enough for a version.")] = None,
) -> None:
    """Change a feed; what is not given stays. It holds for the rows that wait, too."""
    changed = session.client.feeds.update(
        feed,
        columns=rows.mapping(map) if map else None,
        fix=fix,
        quarantine=None if on_error is None else on_error is rows.OnError.quarantine,
        commit_after_s=words.seconds(after) if after else None,
        commit_rows=enough,
    )
    screen.fields(session, changed, _about(changed))


@command(app, "pause")
def pause(session: Session, feed: Name) -> None:
    """Have a feed make no more versions by itself; it takes rows all the same."""
    changed = session.client.feeds.update(feed, paused=True)
    screen.fields(session, changed, _about(changed))
    screen.hint(session, f"go on: sluice dataset feed resume {_short(changed)}")


@command(app, "resume")
def resume(session: Session, feed: Name) -> None:
    """Let a paused feed make versions again."""
    changed = session.client.feeds.update(feed, paused=False)
    screen.fields(session, changed, _about(changed))


@command(app, "delete")
def delete(
    session: Session,
    feed: Name,
    force: Annotated[bool, typer.Option("--force", help="Throw away the rows that wait in it, too.")] = False,
) -> None:
    """Remove a feed; the versions that were made of its rows stay."""
    session.client.feeds.delete(feed, force=force)
    screen.hint(session, "it is gone; events that are still sent to it become dead letters")


@command(app, "push")
def push(
    session: Session,
    feed: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines; - reads standard input.")],
) -> None:
    """Hand the rows of a file to a feed; the default feed is made when it is missing.

    The same file again, within a week, adds nothing: so a push that broke off is simply repeated.
    """
    before = _rows_taken(session, feed)
    with _lines(file) as (lines, request_id):
        taken = session.client.feeds.append(feed, lines, request_id=request_id)
    screen.fields(session, taken, _about(taken))
    if taken.taken_rows == before:
        screen.hint(session, "these rows were handed in before; nothing was added")
    if taken.waiting_rows:
        screen.hint(session, f"a version now: sluice dataset feed flush {feed}")


@command(app, "flush")
def flush(session: Session, feed: Name) -> int:
    """Make a version of the rows that wait, now, and wait for it."""
    from sluice.cli.dataset import show_version
    from sluice.client import RowsRefused

    try:
        version = session.client.feeds.flush(feed)
    except RowsRefused as refused:
        return rows.show_refusal(session, refused)
    if version is None:
        screen.hint(session, "no rows wait in it")
        return exits.OK
    show_version(session, version)
    rows.show_findings(session, version)
    return exits.OK


def _rows_taken(session: Session, feed: str) -> int:
    """How many rows a feed has taken; none where it is not there yet."""
    from kit.rpc.errors import NotFound

    try:
        return session.client.feeds.get(feed).taken_rows
    except NotFound:
        return -1


def _about(feed: dataset.Feed) -> dict[str, object]:
    after = words.duration(feed.commit_after.seconds)
    return {
        "feed": _short(feed),
        "name": feed.name,
        "state": _state(feed),
        "mapping": ", ".join(f"{name} → {meaning}" for name, meaning in sorted(feed.columns.items())),
        "a version": f"every {feed.commit_rows} rows or {words.size(feed.commit_bytes)}, at the latest after {after}",
        "wrong rows": _wrong_rows(feed),
        "only rows with": feed.demands.keep,
        "what identifies": _identities(feed),
        "lost": feed.lost_rows or None,
        "taken": feed.taken_rows,
        "waiting": feed.waiting_rows,
        "since": words.when(feed.waiting_since),
        "last version": words.brief(feed.dataset_version),
        "last failure": feed.failure.message and f"{feed.failure.message}; its rows wait again",
        "NATS subject": feed.subject,
        "by": feed.creator,
    }


def _wrong_rows(feed: dataset.Feed) -> str:
    from sluice.dataset import v1 as contract

    put = "are put aside" if feed.on_error == contract.ON_ERROR_QUARANTINE else "hold up the others"
    return f"are repaired where that is proposed, else {put}" if feed.fix else put


def _identities(feed: dataset.Feed) -> str:
    from sluice.dataset import v1 as contract

    done = {
        contract.DEIDENTIFY_REPORT: "is counted",
        contract.DEIDENTIFY_MASK: "is masked",
        contract.DEIDENTIFY_REFUSE: "makes a row wrong",
    }
    return done.get(feed.demands.deidentify, "")


def _short(feed: dataset.Feed) -> str:
    from sluice.client.feeds import short

    return short(feed.name)


def _state(feed: dataset.Feed) -> str:
    if feed.checked_upload:
        return "CHECKING"
    if feed.HasField("failure"):
        return "FAILED"
    return "PAUSED" if feed.paused else "OPEN"


@contextmanager
def _lines(path: Path) -> Iterator[tuple[Iterator[bytes], str]]:
    """The lines of a file, and the request id that follows from its content; standard input has none."""
    from kit.rpc.errors import Invalid

    if str(path) == "-":
        yield iter(sys.stdin.buffer), ""
        return
    if not path.is_file():
        raise Invalid(f"there is no file `{path}`; give a file with JSON lines, or - for standard input")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        yield _whole(file), str(uuid.uuid5(PUSHES, digest))


def _whole(file: BinaryIO) -> Iterator[bytes]:
    yield from file
