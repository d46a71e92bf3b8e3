"""A row as people read it in a terminal: who says what, cut to the width of the screen; it asks no suite."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sluice.cli import screen

#: What tells of a row and is not said by it.
ABOUT = ("id", "group", "tags")
#: So many lines are shown of a text.
MAX_LINES = 3
#: Characters of scripts without blanks between words.
_WIDE = r"\u1100-\u11ff\u2e80-\ua4cf\uac00-\ud7af\uf900-\ufaff\ufe30-\uffef"
_TOKENS = re.compile(rf"\n|[^\S\n]+|[{_WIDE}]|[^\s{_WIDE}]+")


def show_row(number: int, row: dict[str, Any], *, full: bool = False) -> None:
    """Puts one row on the screen, under its number."""
    from rich.table import Table
    from rich.text import Text

    about = [f"{name} {_joined(row[name])}" for name in ABOUT if row.get(name)]
    screen.put(Text.assemble((f"{number}", "bold"), (screen.plain("  ".join(["", *about])), "dim")))
    texts = list(texts_of(row))
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="cyan", no_wrap=True)
    made.add_column()
    width = screen.out().width - max((len(label) for label, _ in texts), default=0) - 4
    for label, text in texts:
        made.add_row(
            screen.plain(label), "\n".join(lines_of(screen.plain(text), max(width, 8), 0 if full else MAX_LINES))
        )
    screen.put(made)
    screen.put("")


def texts_of(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each text of a row, under its role or the name of its field."""
    for name, value in row.items():
        if name not in ABOUT:
            yield from _texts(name, value)


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for each in value:
            yield from _texts(name, each)
    elif isinstance(value, dict):
        role = value.get("role")
        under = str(role) if role and name == "messages" else f"{name} {role}" if role else name
        for field, each in value.items():
            if field != "role" and each is not None:
                yield from _texts(under if field == "content" else f"{under} {field}", each)
    elif value is not None:
        yield name, str(value).lower() if isinstance(value, bool) else str(value)


def lines_of(text: str, width: int, most: int = 0) -> list[str]:
    """The text in lines of at most so many columns, at most so many lines (0: all); a cut is told by an ellipsis.

    It is broken between words, and between characters of scripts that have none, such as Chinese.
    """
    from rich.cells import cell_len, chop_cells

    lines = [""]
    for token in _TOKENS.findall(text.replace("\t", " ")):
        if token == "\n":
            lines.append("")
        else:
            for piece in chop_cells(token, width):  # a word may be longer than a line
                fits = cell_len(lines[-1] + piece) <= width
                lines[-1:] = [lines[-1] + piece] if fits else [lines[-1], piece.lstrip()]
        if most and len(lines) > most:
            last = chop_cells(lines[most - 1].rstrip(), width - 2)[0]
            return [*lines[: most - 1], f"{last} …"]
    return lines


def _joined(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
