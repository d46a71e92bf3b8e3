"""What two bodies of rows do not share, by the keys of rows alone; what a row says is not known here."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from msgspec import Struct

FIRST = 100
#: Rows of both sides that are compared at once. More are gone through again and again, some keys at a time: reading
#: keys costs less than holding them.
AT_ONCE = 1_000_000
_KEY = ("high", "low")


class Keyed(NamedTuple):
    """Rows that follow one another: the number of the first, their keys as binary(16), the splits they are in."""

    first: int
    keys: pa.Array
    splits: pa.Array


#: Gives all rows of one side from the start, as often as it is called.
Rows = Callable[[], Iterable[Keyed]]


class Change(Struct, frozen=True):
    """Rows that only one side has: how many, how many of each split, and the numbers of the first 100."""

    rows: int
    splits: dict[str, int]
    first: list[int]


class Difference(Struct, frozen=True):
    """What `after` has and `before` has not, and the other way round."""

    added: Change
    removed: Change


def difference(before: Rows, after: Rows, count: int, *, first: int = FIRST, at_once: int = AT_ONCE) -> Difference:
    """Compare rows as multisets: of a key that is there twice and then three times, the last row is added.

    `count` is how many rows both sides have together; from it follows how often each is read.
    """
    added, removed = _Gathered(first), _Gathered(first)
    passes = max(1, -(-count // at_once))
    for place in range(passes):
        earlier, later = (_part(rows(), place, passes) for rows in (before, after))
        added.add(_beyond(later, earlier))
        removed.add(_beyond(earlier, later))
    return Difference(added.change(), removed.change())


def count_new(before: Rows, after: Rows, count: int, *, at_once: int = AT_ONCE) -> int:
    """How many rows of `after` have a key that is nowhere in `before`."""
    passes = max(1, -(-count // at_once))
    sides = ((_part(rows(), place, passes) for rows in (after, before)) for place in range(passes))
    return sum(later.join(earlier, on=_KEY, how="anti").height for later, earlier in sides)


class _Gathered:
    """Rows that only one side has."""

    def __init__(self, first: int) -> None:
        self._number, self._rows = first, 0
        self._first: list[int] = []
        self._splits: dict[str, int] = {}

    def add(self, rows: pl.DataFrame) -> None:
        self._rows += rows.height
        self._first = sorted([*self._first, *rows["row"].bottom_k(self._number)])[: self._number]
        for split, count in rows["split"].value_counts().iter_rows():
            self._splits[split] = self._splits.get(split, 0) + count

    def change(self) -> Change:
        return Change(self._rows, dict(sorted(self._splits.items())), self._first)


def _part(rows: Iterable[Keyed], place: int, passes: int) -> pl.DataFrame:
    """One of so many parts of the rows, such that equal keys are in the same: both halves of each key, row and split.

    A key is a hash, so its halves are as good as random.
    """
    found = [_EMPTY]
    for each in rows:
        words = np.frombuffer(each.keys.buffers()[1], ">u8", 2 * len(each.keys), 16 * each.keys.offset)
        high, low = words[::2].astype(np.uint64), words[1::2].astype(np.uint64)
        table = pl.DataFrame(
            {
                "high": high,
                "low": low,
                "row": np.arange(each.first, each.first + len(high)),
                "split": pl.from_arrow(each.splits.cast(pa.string())),
            },
            schema=_EMPTY.schema,
        )
        found.append(table.filter(pl.col("high") % passes == place) if passes > 1 else table)
    return pl.concat(found)


def _beyond(rows: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """The rows that the others have not; of a key that is there so many times more often, the last ones."""
    missing = rows.join(others, on=_KEY, how="anti")
    repeated = rows.group_by(_KEY).len().filter(pl.col("len") > 1)
    if not repeated.height:
        return missing
    there = others.join(repeated, on=_KEY, how="semi").group_by(_KEY).agg(there=pl.len())
    shared = rows.join(there, on=_KEY, maintain_order="left")
    return pl.concat([missing, shared.filter(pl.int_range(pl.len()).over(_KEY) >= pl.col("there")).drop("there")])


_EMPTY = pl.DataFrame(schema={"high": pl.UInt64, "low": pl.UInt64, "row": pl.Int64, "split": pl.Categorical})
