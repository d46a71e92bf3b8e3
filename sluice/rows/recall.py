"""Rows that were forgotten and must not come back; cheap to import."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sluice.rows.demands.step import Looked, Step

if TYPE_CHECKING:
    import pyarrow as pa

    from sluice.rows.checking import Checked
    from sluice.rows.columns.arrays import Mask


@dataclass(frozen=True)
class Forgotten:
    """What was forgotten: salted digests of ids, groups and tags (`sluice.rows.erasing.digests`).

    `names` are what files have called these columns, such as {"patient_id": "group"}: a file that does not say what
    such a name means brings nothing back all the same.
    """

    salt: str = ""
    digests: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything was."""
        return bool(self.digests)


@dataclass
class Recall:
    """The step that leaves forgotten rows out, and how many that were, of those that are right and of those that are
    wrong; called from several threads at a time.
    """

    forgotten: Forgotten
    rows: int = 0
    aside: int = 0
    _counting: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __call__(self, rows: pa.Table) -> Looked:
        """Keep the rows that were not forgotten."""
        return Looked(rows, kept=~self._known(rows, None))

    def after(self, step: Step) -> Step:
        """The step, and then once more: a row that it gives the id of one that was forgotten is forgotten too."""

        def both(rows: pa.Table) -> Looked:
            looked = step(rows)
            known = self._known(looked.rows, looked.kept)
            return replace(looked, kept=~known if looked.kept is None else looked.kept & ~known)

        return both

    def _known(self, rows: pa.Table, among: Mask | None) -> Mask:
        """Which rows were forgotten, of those that are among some, and counts them."""
        from sluice.rows.erasing import recalled

        known = recalled(rows, self.forgotten)
        known = known if among is None else known & among
        with self._counting:
            self.rows += int(known.sum())
        return known

    def unsaid(self, checked: Checked) -> None:
        """Leave rows out that were forgotten by what stands under a name which former files gave a meaning."""
        import numpy as np

        from sluice.rows.erasing import called

        names, frame = self.forgotten.names, checked.frame
        if not names or not len(checked.rows):
            return
        if frame.columns is None:
            known = np.array(
                [self._speaks(frame.row(int(place)).decode(), names) for place in checked.places], np.bool_
            )
        else:
            known = called(frame.columns, self.forgotten)[checked.places]
        self.rows += int(known.sum())
        checked.filtered += int(known.sum())
        checked.keep(~known)

    def put_aside(self, lines: Sequence[bytes], columns: Mapping[str, str]) -> list[bytes]:
        """Of rows that are wrong those that were not forgotten; ``columns`` says what names in the file mean."""
        meant = {**self.forgotten.names, **columns}
        kept = [line for line in lines if not self._speaks(json.loads(line)["content"], meant)]
        self.aside += len(lines) - len(kept)
        return kept

    def _speaks(self, raw: str, columns: Mapping[str, str]) -> bool:
        from sluice.rows.erasing import COLUMNS, digests

        try:
            row = json.loads(raw)
        except (ValueError, RecursionError):
            return False
        said: dict[str, list[str]] = {}
        for name, value in row.items() if isinstance(row, dict) else ():
            if (column := columns.get(name, name)) in COLUMNS and value is not None:
                said.setdefault(column, []).extend(map(str, value if isinstance(value, list) else [value]))
        salt, known = self.forgotten.salt, self.forgotten.digests
        return any(bool(digests(values, column, salt).is_in(known).any()) for column, values in said.items() if values)
