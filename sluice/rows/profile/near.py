"""Contents that are nearly the same: which are compared, in bounded memory, and which of them are found to be twins."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from sluice.rows.profile.minhash import Places, Signatures, banding, signatures, similarity

#: With how many neighbors in its bucket a content is compared.
_WINDOW = 4
#: How full a pool is left when it has been too full: it must not be gone through again for each batch of repeats.
_FILLED = 0.8
#: Rows signed at once.
_AT_ONCE = 8192
Keys = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]


class Contents(NamedTuple):
    """Contents, those of train and those of held-out rows apart: their first rows, 64-bit keys, sides, signatures."""

    rows: Places
    keys: Keys
    trained: Flags
    low: npt.NDArray[np.uint8]
    bands: npt.NDArray[np.uint32]

    @classmethod
    def room(cls, count: int, bands: int) -> "Contents":
        """Room for so many; it takes memory only as it is filled."""
        signed = Signatures.room(count, bands)
        return cls(np.empty(count, np.int64), np.empty(count, np.uint64), np.empty(count, np.bool_), *signed)

    def part(self, which: slice | Flags) -> "Contents":
        """Some of them."""
        return Contents(*(column[which] for column in self))  # type: ignore[arg-type]


class Pool:
    """The signatures of at most `limit` contents, 230 bytes each. Of more it keeps a sample, drawn by their keys.

    `cutoffs`, of held-out contents and of those of train: just the contents whose key is not above it are in. One is
    halved whenever there are too many (adaptive sampling, Flajolet, Computing 43, 1990): that of train, as long as two
    thirds are of it, for a held-out content that is left out cannot be found to leak.
    """

    def __init__(self, limit: int, *, threshold: float, shingle: int, seed: int) -> None:
        self._limit, self._threshold, self._shingle, self._seed = limit, threshold, shingle, seed
        bands, _ = banding(threshold)
        self._room, self._count = Contents.room(limit, bands), 0
        self.cutoffs = np.full(2, np.iinfo(np.uint64).max, np.uint64)

    def add(self, rows: Places, keys: Keys, trained: Flags, texts: pl.Series, salts: Keys) -> None:
        """Take in those that are new among the rows with a text; the order of rows is that of their numbers."""
        filled = (texts.str.strip_chars() != "").to_numpy()
        step = max(min(_AT_ONCE, self._limit // 8), 1)
        for start in range(0, len(rows), step):
            here = slice(start, start + step)
            new = filled[here] & _first(keys[here], trained[here])
            if self._count + new.sum() > self._limit:
                self._shrink()
            new &= keys[here] <= self.cutoffs[trained[here].astype(np.int8)]
            signed = signatures(
                texts[here].filter(pl.Series(new)),
                salts[here][new],
                threshold=self._threshold,
                shingle=self._shingle,
                seed=self._seed,
            )
            self._append(Contents(rows[here][new], keys[here][new], trained[here][new], *signed))

    def contents(self) -> Contents:
        """What is kept, each content once on each side, in the order of their rows."""
        kept = self._room.part(slice(self._count))
        self._keep(_first(kept.keys, kept.trained))
        return self._room.part(slice(self._count))

    def _append(self, more: Contents) -> None:
        here = slice(self._count, self._count + len(more.rows))
        columns: Sequence[npt.NDArray[Any]] = self._room
        for column, values in zip(columns, more, strict=True):
            column[here] = values
        self._count = here.stop

    def _keep(self, which: Flags) -> None:
        """Leave out the others, a column after the other: all at once would take as much memory again."""
        for column in self._room:
            column[: which.sum()] = column[: self._count][which]
        self._count = int(which.sum())

    def _shrink(self) -> None:
        kept = self.contents()
        while len(kept.rows) > _FILLED * self._limit:
            side = int(kept.trained.mean() >= 2 / 3)
            self.cutoffs[side] >>= np.uint64(1)
            self._keep((kept.trained != side) | (kept.keys <= self.cutoffs[side]))
            kept = self._room.part(slice(self._count))


def _first(keys: Keys, trained: Flags) -> Flags:
    """Which keys have not been there before on the same side."""
    found = np.zeros(len(keys), np.bool_)
    for side in (trained, ~trained):
        places = np.flatnonzero(side)
        found[places[np.unique(keys[places], return_index=True)[1]]] = True
    return found


class Twins(NamedTuple):
    """Tables of `row`, `twin` (both numbers of rows) and `similar`, in the order of the rows."""

    earlier: pl.DataFrame
    trained: pl.DataFrame


def twins(contents: Contents, threshold: float, tick: Callable[[], None] = lambda: None) -> Twins:
    """Find for each content an earlier one that is near, and for each held-out one a near one in train.

    One twin each, not all of them; a content that is on both sides may be its own. A pair at the threshold shares a
    band with 99.5 %; where many contents share one, each is compared with the 4 before it in each band.
    """
    earlier, leaks = _Found(contents, threshold), _Found(contents, threshold)
    for place in range(contents.bands.shape[1]):
        tick()
        band = contents.bands[:, place]
        for left, right in neighbors(band):
            earlier.compare(left, right)
        for known, other in across(band, contents.trained):
            leaks.compare(known, other)
    return Twins(earlier.table(), leaks.table())


class _Found:
    """The first twin that was found for each content."""

    def __init__(self, contents: Contents, threshold: float) -> None:
        self._contents, self._threshold = contents, threshold
        self._twin = np.full(len(contents.rows), -1, np.int64)
        self._similar = np.zeros(len(contents.rows))

    def compare(self, left: Places, right: Places) -> None:
        """Note `left` as the twin of `right` where they are near and none was found; `right` has no place twice."""
        todo = self._twin[right] < 0
        left, right = left[todo], right[todo]
        similar = similarity(self._contents.low, left, right)
        near = similar >= self._threshold
        self._twin[right[near]], self._similar[right[near]] = left[near], similar[near]

    def table(self) -> pl.DataFrame:
        found = np.flatnonzero(self._twin >= 0)
        rows = self._contents.rows
        return pl.DataFrame({"row": rows[found], "twin": rows[self._twin[found]], "similar": self._similar[found]})


def neighbors(band: npt.NDArray[np.uint32]) -> Iterator[tuple[Places, Places]]:
    """Pairs (earlier, later) of one bucket: each with the few before it in order."""
    order = np.argsort(band, kind="stable")
    keys = band[order]
    for lag in range(1, _WINDOW + 1):
        same = keys[lag:] == keys[:-lag]
        yield order[:-lag][same], order[lag:][same]


def across(band: npt.NDArray[np.uint32], known: Flags) -> Iterator[tuple[Places, Places]]:
    """Pairs (known, other) of one bucket: each of the others with the few known ones before where it would stand."""
    order = np.flatnonzero(known)
    order = order[np.argsort(band[order], kind="stable")]
    others = np.flatnonzero(~known)
    keys, sought = band[order], band[others]
    last = np.searchsorted(keys, sought, "right") - 1
    for lag in range(_WINDOW):
        place = last - lag
        same = place >= 0
        same[same] = keys[place[same]] == sought[same]
        yield order[place[same]], others[same]
