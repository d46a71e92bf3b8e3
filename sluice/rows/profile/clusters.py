"""Rows that belong together, out of pairs of them; why two make a pair is not known here."""

import numpy as np
import numpy.typing as npt
import polars as pl
from msgspec import Struct

#: Of the rows of a cluster so many are told.
CLUSTER_ROWS = 20


class Cluster(Struct, frozen=True):
    """Rows that belong together, each the same as or near to another of them; `first` are the first 20.

    `exact`: all say the same.
    """

    rows: int
    exact: bool
    first: list[int]


class Families:
    """Which rows belong together, from pairs of each with one before it."""

    def __init__(self, rows: int) -> None:
        self._before = np.arange(rows + 1)
        self._near = np.zeros(rows + 1, np.bool_)

    def add(self, rows: pl.Series, earlier: pl.Series, *, exact: bool) -> None:
        """Put rows to those before them; none comes twice."""
        self._before[rows.to_numpy()] = earlier.to_numpy()
        self._near[rows.to_numpy()] = not exact

    def count(self) -> int:
        """How many families of more than one row there are."""
        return int((np.bincount(self._first()) > 1).sum())

    def largest(self, number: int) -> list[Cluster]:
        """The largest of them; among those of a size, those that begin earlier."""
        first = self._first()
        sizes, near = np.bincount(first), np.bincount(first, self._near)
        found = np.argsort(-sizes, kind="stable")[:number]
        found = found[sizes[found] > 1]
        members = np.flatnonzero(np.isin(first, found))
        members = members[np.argsort(first[members], kind="stable")]
        starts = np.searchsorted(first[members], found)
        return [
            Cluster(int(sizes[each]), not near[each], members[start : start + min(sizes[each], CLUSTER_ROWS)].tolist())
            for each, start in zip(found, starts, strict=True)
        ]

    def _first(self) -> npt.NDArray[np.int64]:
        """The first row of each row's family: the way back, in ever longer steps."""
        while not np.array_equal(further := self._before[self._before], self._before):
            self._before = further
        return self._before
