"""Ids that rows have been called by, and who had one first; what else is in a row is not known here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from sluice.rows.violations import RefusedError

Hashes = np.ndarray[Any, np.dtype[np.uint64]]
Numbers = np.ndarray[Any, np.dtype[np.int64]]
Places = np.ndarray[Any, np.dtype[np.uint32]]
#: Runs shorter than this are merged, so that a few are searched; merging takes as much memory again for a moment.
RUN = 1 << 20
#: Ids beyond so many are not remembered: 12 bytes each.
MOST = 24_000_000


class SeenIds:
    """The ids seen so far, as XXH3-64 and the number of the first row that had each: 12 bytes an id.

    Rows are numbered as the caller likes, below 2**32. That two of ten million ids have one hash has the chance 3e-6.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[Hashes, Places]] = []
        self._count = 0

    def find(self, ids: pa.ChunkedArray) -> dict[int, int]:
        """The row that had the id of each before, by place; ids have the shape (rows,), null for none."""
        if not self._runs:
            return {}
        places, hashes = _hashed(ids)
        unique, of = np.unique(hashes, return_inverse=True)
        first = self._first(unique)
        return {int(places[each]): int(first[of[each]]) for each in np.flatnonzero(first[of] >= 0)}

    def add(self, ids: pa.ChunkedArray, numbers: Numbers) -> dict[int, int]:
        """Takes the ids of rows of these numbers; returns what `find` does, for rows among themselves as well."""
        places, hashes = _hashed(ids)
        rows = numbers[places]
        unique, at, of = np.unique(hashes, return_index=True, return_inverse=True)
        first = self._first(unique)
        new = first < 0
        first[new] = rows[at[new]]
        if self._count < MOST:
            self._remember(unique[new], first[new].astype(np.uint32))
        twins = np.flatnonzero(~new[of] | (at[of] != np.arange(len(hashes))))
        return {int(places[each]): int(first[of[each]]) for each in twins}

    def _first(self, hashes: Hashes) -> Numbers:
        """The row that had each, -1 where none had; the hashes are sorted, which is what makes this quick."""
        found = np.full(len(hashes), -1, np.int64)
        for run, rows in self._runs:
            near = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
            same = run[near] == hashes
            found[same] = rows[near[same]]
        return found

    def _remember(self, hashes: Hashes, rows: Places) -> None:
        if not len(hashes):
            return
        self._count += len(hashes)
        while self._runs and len(self._runs[-1][0]) <= min(2 * len(hashes), RUN):
            before, rows_before = self._runs.pop()
            hashes, rows = np.concatenate([before, hashes]), np.concatenate([rows_before, rows])
            order = np.argsort(hashes, kind="stable")
            hashes, rows = hashes[order], rows[order]
        self._runs.append((hashes, rows))


class Twins:
    """Which rows of a file, or of the files of an archive, have an id that another row had before.

    `before` gives the ids of the version that the rows are appended to; it is asked when the first id comes.
    """

    def __init__(self, before: Callable[[], SeenIds]) -> None:
        self._read_before = before
        self._before: SeenIds | None = None
        self._seen = SeenIds()
        self._files: list[tuple[str, int]] = []
        self._highest = 0

    def find(self, ids: pa.ChunkedArray, numbers: Numbers, file: str) -> dict[int, RefusedError]:
        """What is wrong with rows of a file, by place; files come one after the other."""
        if ids.null_count == len(ids):
            return {}
        if self._before is None:
            self._before = self._read_before()
        if not self._files or self._files[-1][0] != file:
            self._files.append((file, self._highest))
        ours = numbers + self._files[-1][1]
        self._highest = int(ours[-1])
        twins = {place: self._same(row) for place, row in self._seen.add(ids, ours).items()}
        return twins | {place: _same_before(row) for place, row in self._before.find(ids).items()}

    def _same(self, place: int) -> RefusedError:
        file, before = next(each for each in reversed(self._files) if each[1] < place)
        return _twin(f"the id of row {place - before} of {file}" if file else f"the id of row {place}")


def of_part(part: BinaryIO) -> pa.ChunkedArray:
    """The ids of a stored part, of which nothing else is read."""
    return pyarrow.parquet.ParquetFile(part, pre_buffer=False).read(["id"], use_threads=False).column("id")


def _same_before(row: int) -> RefusedError:
    return _twin(f"the id of row {row} of the version that is appended to")


def _twin(found: str) -> RefusedError:
    return RefusedError("id", "duplicate-id", "an id of its own", found, "give it another, or drop one")


def _hashed(ids: pa.ChunkedArray) -> tuple[Numbers, Hashes]:
    """The places of ids that are there, and their hashes."""
    import polars_hash as hashing

    text = pl.DataFrame({"id": pl.Series(pl.from_arrow(pc.cast(ids.drop_null(), pa.string())), dtype=pl.String)})
    hashes = text.select(hashing.col("id").nchash.xxh3_64()).to_series().to_numpy()
    return np.flatnonzero(np.asarray(ids.is_valid())), hashes
