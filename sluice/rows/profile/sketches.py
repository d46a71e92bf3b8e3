"""Summaries of long columns in little memory, each with its bound of error; what the values mean is not known here."""

import math

import numpy as np
import numpy.typing as npt
import polars as pl
from msgspec import Struct

#: A quantile is off by at most this share of its value; below 1 / (2 × ACCURACY) = 100 it is exact.
ACCURACY = 0.005
_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
#: Up to so many different values each is counted by itself.
_DISTINCT = 4096
_BARS = 30
#: From this ratio of the largest to the smallest value on, the bars of a histogram grow with the values.
_WIDE = 20
Integers = npt.NDArray[np.int64]


class Bar(Struct, frozen=True):
    """How many of the values lie from `low` to `high`, both included."""

    low: int
    high: int
    count: int


class Lengths(Struct, frozen=True):
    """How whole numbers from 0 on are distributed: `count` of them; quantiles as exact as `LogHistogram` says."""

    count: int
    total: int
    min: int
    p5: int
    p50: int
    p95: int
    p99: int
    max: int
    mean: float
    histogram: list[Bar]


class LogHistogram:
    """Counts whole numbers from 0 on, in at most 100 kB whatever their number.

    Exact up to 4096 different values. Beyond that they are counted in buckets that grow by 1 %: DDSketch (Masson, Rim
    and Lee, VLDB 2019, arXiv:1908.10693) with a fixed range. A quantile is then within `ACCURACY` of a value that has
    that very rank, and bars are exact but for values within 0.5 % of their edges. Count, total, smallest and largest
    are always exact.
    """

    def __init__(self) -> None:
        self._values, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._exact = True
        self._total = 0
        self._min: int | None = None
        self._max = 0

    def add(self, values: Integers) -> None:
        """Count the values, a vector of any length."""
        if not len(values):
            return
        self._total += int(values.sum())
        low, self._max = int(values.min()), max(self._max, int(values.max()))
        self._min = low if self._min is None else min(self._min, low)
        self._count(*np.unique(values if self._exact else _rounded(values), return_counts=True))
        if self._exact and len(self._values) > _DISTINCT:
            self._exact, values, counts = False, _rounded(self._values), self._counts
            self._values, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
            self._count(values, counts)

    def lengths(self) -> Lengths | None:
        """The summary; None when nothing was counted."""
        if self._min is None:
            return None
        count = int(self._counts.sum())
        p5, p50, p95, p99 = (self._quantile(share, count) for share in (0.05, 0.5, 0.95, 0.99))
        mean = self._total / count
        return Lengths(count, self._total, self._min, p5, p50, p95, p99, self._max, mean, self._bars())

    def _count(self, values: Integers, counts: Integers) -> None:
        self._values, places = np.unique(np.concatenate([self._values, values]), return_inverse=True)
        weights = np.concatenate([self._counts, counts])
        self._counts = np.bincount(places, weights=weights, minlength=len(self._values)).astype(np.int64)

    def _quantile(self, share: float, count: int) -> int:
        rank = max(math.ceil(share * count), 1)
        return min(max(int(self._values[np.searchsorted(np.cumsum(self._counts), rank)]), self._min or 0), self._max)

    def _bars(self) -> list[Bar]:
        low, high = self._min or 0, self._max
        spread = np.geomspace if high > _WIDE * max(low, 1) else np.linspace
        inner = np.unique(np.rint(spread(max(low, 1), high + 1, _BARS + 1)).astype(np.int64))
        edges = np.unique(np.concatenate([[low], inner[inner > low], [high + 1]]))
        counts, _ = np.histogram(np.clip(self._values, low, high), edges, weights=self._counts)
        return [
            Bar(int(start), int(end) - 1, int(number))
            for start, end, number in zip(edges[:-1], edges[1:], counts, strict=True)
        ]


def _rounded(values: Integers) -> Integers:
    """Each value as the one that stands for its bucket: as near as can be to both of its ends."""
    places = np.ceil(np.log(np.maximum(values, 1)) / math.log(_GAMMA))
    return np.where(values > 0, np.rint(2 * _GAMMA**places / (_GAMMA + 1)), 0).astype(np.int64)


class Tally:
    """Counts how often each value occurs, and keeps the most frequent `limit` of them.

    Exact up to `limit` different values. Beyond that every count is low by at most `error`, which stays below
    rows / limit, and what is missing occurs at most that often (Misra and Gries 1982, merged batch by batch as in
    Agarwal et al., Mergeable Summaries, PODS 2012).
    """

    def __init__(self, kind: pl.DataType | type[pl.DataType], limit: int = 10_000) -> None:
        self._table = pl.DataFrame(schema={"value": kind, "count": pl.Int64})
        self._limit = limit
        self.total = 0
        self.error = 0

    def add(self, values: pl.Series) -> None:
        """Count the values that are not null."""
        values = values.drop_nulls().alias("value")
        self.total += len(values)
        seen = values.value_counts(name="count").with_columns(pl.col("count").cast(pl.Int64))
        table = pl.concat([self._table, seen]).group_by("value").agg(pl.col("count").sum())
        table = table.sort("count", "value", descending=[True, False])
        if table.height > self._limit:
            floor = int(table["count"][self._limit])
            self.error += floor
            table = table.head(self._limit).with_columns(pl.col("count") - floor).filter(pl.col("count") > 0)
        self._table = table

    def top(self, number: int) -> list[tuple[object, int]]:
        """The most frequent values with their counts; equal counts in the order of the values."""
        return list(self._table.head(number).iter_rows())

    @property
    def distinct(self) -> int | None:
        """How many different values there are; None when they are too many to be told."""
        return None if self.error else self._table.height


class Sample:
    """A uniform sample without replacement of a stream of texts; the same for the same seed, however it is cut up."""

    def __init__(self, size: int, characters: int, seed: int) -> None:
        self._size, self._characters = size, characters
        self._random = np.random.default_rng(seed)
        self._kept = pl.DataFrame(schema={"draw": pl.Float64, "text": pl.String})

    def add(self, texts: pl.Series) -> None:
        """Offer texts; of each that is kept, the first characters are."""
        draws = pl.Series("draw", self._random.random(len(texts)))
        low = pl.DataFrame({"draw": draws, "text": texts}).bottom_k(self._size, by="draw")
        low = low.with_columns(pl.col("text").str.head(self._characters))
        self._kept = pl.concat([self._kept, low]).bottom_k(self._size, by="draw")

    def texts(self) -> list[str]:
        """The texts of the sample, at most `size`."""
        return self._kept.sort("draw")["text"].to_list()


def wilson(hits: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927, JASA 22), for trials > 0."""
    share, spread = hits / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return max(middle - half, 0.0), min(middle + half, 1.0)
