"""What a name in a file may be said to mean (`findings` → `prompt`), and whether the file has it; no row is judged."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from kit.rpc.errors import Invalid
from sluice.rows.answers import REJECTED, VERDICTS
from sluice.rows.conventions import PAIRS
from sluice.rows.entities import EVERY_NAME as OF_ENTITIES
from sluice.rows.fields import LABEL, NEGATIVES, POSITIVE, QUERY, TEXT
from sluice.rows.mentions import EVERY_NAME
from sluice.rows.schemas import BOXES, CAPTIONS, EXPRESSIONS
from sluice.rows.violations import Violation, near

if TYPE_CHECKING:
    from sluice.rows.frames import Frame

#: Every field that some row schema reads.
MEANINGS = frozenset(
    {
        *("messages", "conversations", "chosen", "text", "id", "group", "tags"),
        *(name for pair in PAIRS for name in pair.fields),
        *(*REJECTED, *VERDICTS, *QUERY, *POSITIVE, *NEGATIVES, *TEXT, *LABEL),
        *(*EVERY_NAME, *OF_ENTITIES, *BOXES, *CAPTIONS, *EXPRESSIONS),
    }
)
_USUAL = "`messages`, `prompt`, `completion`, `text`, `label`, `image`, `id`, `group`, `tags`"
#: Names of a file that are shown, those that are kept, and characters that one may have: a longer one may be content.
_MOST_SHOWN, _MOST_KEPT, _LONGEST = 8, 1000, 40


def check_meanings(columns: Mapping[str, str]) -> None:
    """Raises Invalid for a name that is said to mean what no row schema reads."""
    for name, meaning in columns.items():
        if meaning not in MEANINGS:
            close = near([meaning], sorted(MEANINGS))
            there = f"did you mean `{close.new}`? There are" if close else "there are"
            raise Invalid(
                f"`{name}` cannot mean `{meaning}`: there is no such meaning; {there} {_USUAL} and others",
                violations=[("columns", f"`{meaning}` is no meaning")],
            )


@dataclass
class Unmet:
    """The names that were given a meaning and that no row has had so far."""

    names: list[str]
    had: dict[str, None] = field(default_factory=dict)

    def look(self, frame: Frame) -> None:
        """Strike out what the rows of a frame have."""
        if not self.names:
            return
        for names in _names_in(frame):
            self.names = [name for name in self.names if name not in names]
            if len(self.had) < _MOST_KEPT:
                self.had.update(dict.fromkeys(list(names)[:_MOST_KEPT]))
            if not self.names:
                return

    def violations(self) -> Iterator[Violation]:
        """What is wrong with the file as a whole; nothing where it had no rows."""
        shown = [name for name in self.had if len(name) <= _LONGEST]
        for name in self.names if self.had else ():
            close = near(shown, [name.lower()])
            first = [close.old] if close else []
            has = ", ".join(
                f"`{each}`" for each in [*first, *(each for each in shown if each not in first)][:_MOST_SHOWN]
            )
            yield Violation(
                0, name, "missing-column", f"a column `{name}`", "none in any row", f"name one that is there: {has}"
            )


def _names_in(frame: Frame) -> Iterator[Collection[str]]:
    """The names of a frame's columns, or of its rows one by one."""
    from sluice.rows.columns import EXPECTED

    if frame.columns is not None:
        table = frame.columns
        empty = {name for name in table.column_names if table.column(name).null_count == len(table)}
        yield [name for name in table.column_names if name not in empty or name not in EXPECTED]  # a parser adds those
        return
    for index in range(len(frame)):
        try:
            row = msgspec.json.decode(frame.row(index))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # it is told as a wrong row
            continue
        if isinstance(row, dict):
            yield row.keys()
