"""How things look: tables, fields, trees and JSON lines; it calls no service."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from sluice.cli.options import Session

Cell = "str | int | Text | None"
Columns = Mapping[str, Callable[[Any], Any]]
GOOD = ("SUCCEEDED", "APPROVED", "PROMOTED", "READY", "PASS", "COMMITTED", "ADVANCE", "ok")
BAD = ("FAILED", "REJECTED", "ROLLED_BACK", "ROLL_BACK", "REVOKED", "DECLINED", "FAIL", "wrong")
ODD = ("CANCELLED", "EXPIRED", "PAUSED", "INCONCLUSIVE", "AWAITING_APPROVAL", "PROPOSED", "RETIRED", "RELEASED", "mind")
PIPE_WIDTH = 240
#: What is no longer stays on one line, so that ids and states are not broken in two.
SHORT = 18
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@cache
def out() -> Console:
    """Standard output; a pipe gets long lines instead of wrapped ones."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


@cache
def err() -> Console:
    """Standard error: progress and hints, so that data can be piped."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def emit(message: Message | Mapping[str, Any]) -> None:
    """One JSON line: a message of the contract with its own field names, every field present."""
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import Message as ProtoMessage

    if isinstance(message, ProtoMessage):
        message = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    sys.stdout.write(json.dumps(message, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def hint(session: Session, text: str) -> None:
    """What one may do next; not with --quiet or --json."""
    if not session.quiet and not session.json:
        err().print(_text(text, "dim"), soft_wrap=not err().is_terminal)


def put(what: RenderableType) -> None:
    """Prints to standard output; a pipe gets no padding at the ends of lines."""
    console = out()
    if console.is_terminal:
        console.print(what)
        return
    with console.capture() as captured:
        console.print(what)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def listing(session: Session, items: Iterable[Any], columns: Columns, empty: str) -> None:
    """Messages as a table, or as JSON lines; ``empty`` says how the first one comes about."""
    items = list(items)
    if session.json:
        for item in items:
            emit(item)
    elif items:
        put(table(items, columns))
    else:
        hint(session, empty)


def table(items: Iterable[Any], columns: Columns) -> Table:
    """A table with a row for each item, numbers to the right; closer together where the terminal is narrow."""
    rows = [[show(item) for show in columns.values()] for item in items]
    wide = _table(rows, tuple(columns), gap=3)
    anything = out().options.update(max_width=10 * PIPE_WIDTH)
    if out().measure(wide, options=anything).maximum <= out().width:
        return wide
    return _table(rows, [title.replace(" ", "\n") for title in columns], gap=1)


def _table(rows: Sequence[Sequence[Any]], titles: Sequence[str], gap: int) -> Table:
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for index, title in enumerate(titles):
        values = [row[index] for row in rows]
        numeric = bool(rows) and all(isinstance(value, int | float) for value in values)
        short = all(len(str(value)) <= SHORT for value in values)
        side, overflow = "right" if numeric else "left", "ellipsis" if short else "fold"
        made.add_column(title, justify=side, overflow=overflow, no_wrap=short)  # type: ignore[arg-type]
    for row in rows:
        made.add_row(*(cell(value) for value in row))
    return made


def fields(session: Session, message: Message, rows: Mapping[str, Any], *more: RenderableType) -> None:
    """One message as aligned fields, with what follows below; or as one JSON line."""
    from rich.table import Table

    if session.json:
        emit(message)
        return
    made = Table.grid(padding=(0, 3, 0, 0))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows.items():
        if value not in ("", None):
            made.add_row(name, cell(value))
    put(made)
    for each in more:
        put("")
        put(each)


def cell(value: Any) -> RenderableType:
    """A value as it stands in a table: words of state get their color, markup means nothing."""
    from rich.text import Text

    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int):
        return Text(f"{value:,}".replace(",", " "))
    if isinstance(value, float):
        return Text(f"{value:.4g}")
    if isinstance(value, str):
        return Text(plain(value), style=style_of(value))
    return value if value is not None else Text("")


def plain(text: str) -> str:
    """The text without what moves a terminal's cursor or changes its state: others, or a model, have written it."""
    return CONTROL.sub("", text)


def style_of(word: str) -> str:
    """Green for what went well, red for what did not, yellow for what wants a look, cyan for what is under way."""
    if word in GOOD:
        return "green"
    if word in BAD:
        return "red"
    if word in ODD:
        return "yellow"
    return "cyan" if word.isupper() and len(word) > 4 else ""


def heading(text: str) -> Text:
    """The title of a part of a screen."""
    return _text(text, "bold")


def titled(title: str, items: Sequence[Any], columns: Columns) -> RenderableType:
    """A table under a title."""
    from rich.console import Group

    return Group(heading(title), table(items, columns))


def _text(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(plain(text), style=style)
