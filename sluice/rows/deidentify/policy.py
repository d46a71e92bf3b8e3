"""Tables looked through for what identifies people, and masked where that is wanted. How it is found is not known.

Works on one table at a time; a caller that reads batches adds the counts up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from sluice.rows.deidentify.recognizers import Recognizer
from sluice.rows.deidentify.text import Placeholders, find

if TYPE_CHECKING:
    import polars as pl

    from sluice.rows.deidentify.leaves import Rows


class Policy(StrEnum):
    """What is done about identifying text, from the least to the most."""

    OFF = ""
    REPORT = "report"
    MASK = "mask"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Findings:
    """How often each kind was found in each field, and what was found in each row; never what it says.

    ``counts`` has (kind, path) such as (``CN_MOBILE``, ``messages[].content``). ``rows`` has, by the place of a row
    from 0, the kinds in each path.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    rows: dict[int, dict[str, set[str]]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.counts)


def look(
    table: pl.DataFrame, using: Sequence[Recognizer], *, mask: bool = False, columns: Collection[str] | None = None
) -> tuple[pl.DataFrame, Findings]:
    """The table, and what was found in its texts, also those inside lists and structs.

    ``columns`` (None: all) are looked at. With ``mask`` the schema stays what it was and placeholders are the same for
    the same value within a row; without, or where nothing was found, it is the very table that was given.
    """
    from sluice.rows.deidentify.leaves import rewrite

    looked = _Look(using, mask)
    changed = rewrite(table, table.columns if columns is None else columns, looked.visit)
    return changed, looked.findings


class _Look:
    """One look through the texts of a table."""

    def __init__(self, using: Sequence[Recognizer], mask: bool) -> None:
        self._using = using
        self._mask = mask
        self._placeholders: dict[int, Placeholders] = {}
        self.findings = Findings()

    def visit(self, path: str, texts: pl.Series, rows: Rows) -> pl.Series:
        found = find(texts, self._using)
        for place, spans in found.items():
            self.findings.counts.update((span.kind, path) for span in spans)
            kinds = self.findings.rows.setdefault(int(rows[place]), {}).setdefault(path, set())
            kinds.update(span.kind for span in spans)
        if not self._mask or not found:
            return texts
        places = list(found)
        masked = [
            self._placeholders.setdefault(int(rows[place]), Placeholders()).mask(text, found[place])
            for place, text in zip(places, texts.gather(places).to_list(), strict=True)
        ]
        return texts.clone().scatter(places, masked)
