"""Rows that repeat others, and held-out rows whose twin is trained on; what to do about them is not decided here."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import polars as pl
import pyarrow as pa
from msgspec import Struct

from sluice.rows.profile.clusters import Cluster, Families
from sluice.rows.profile.contents import asset_keys, content_keys, high_halves
from sluice.rows.profile.near import Pool, twins
from sluice.rows.profile.texts import frame_of, joined, labels_of, texts_of

THRESHOLD = 0.8
SHINGLE = 5
#: How many different rows are compared for near duplicates, and how many are looked through for equal ones at once.
MAX_ROWS = 500_000
FIRST = 100
TRAIN = "train"


class Twin(Struct, frozen=True):
    """A row of `split`, and another that is as `similar`; rows count from 1 in the order they came.

    `exact`: they say the same. One that is not may still be estimated at 1.0, as where only white space differs.
    """

    row: int
    split: str
    twin: int
    similar: float
    exact: bool


class Duplicates(Struct, frozen=True):
    """How many rows repeat others, each kind with the first of them, 100 if not told otherwise.

    `exact`: rows that say just what an earlier one says. `near`: other rows that are similar to an earlier one.
    `held_out` rows are those of a split that is not train; `leaked_exact` of them have an exact twin in train,
    `leaked_near` only a near one. `conflicting_labels`: rows that say the same as another and have another label.

    `compared` of `rows` took part in the search for near ones. Fewer than all: `near` and `leaked_near` are lower
    bounds, for a sample drawn by content; the exact counts are always of all rows.

    `clusters`: into how many groups the rows fall that repeat others or are repeated; `largest` are the first 100 of
    them, most rows first.
    """

    rows: int
    exact: int
    near: int
    held_out: int
    leaked_exact: int
    leaked_near: int
    conflicting_labels: int
    exact_first: list[Twin]
    near_first: list[Twin]
    leaked_first: list[Twin]
    threshold: float
    shingle: int
    compared: int
    clusters: int = 0
    largest: list[Cluster] = []


def find_duplicates(
    batches: Iterable[pa.RecordBatch | pa.Table],
    *,
    threshold: float = THRESHOLD,
    shingle: int = SHINGLE,
    max_rows: int = MAX_ROWS,
    first: int = FIRST,
    seed: int = 0,
) -> Duplicates:
    """Find rows that repeat others, in one pass over batches of any size.

    Two rows are near when the Jaccard similarity of their character n-grams (`shingle` characters, without case and
    white space, system messages left out, assets the same) is estimated at `threshold` or more; ValueError when that is
    not above 0 and at most 1. By MinHash (Broder 1997) and bands (Leskovec, Rajaraman and Ullman, section 3.4). Memory,
    measured: 0.4 GB for `max_rows` of 500 000, and up to 150 bytes for each row more.
    """
    whole = DuplicatesPass(threshold=threshold, shingle=shingle, max_rows=max_rows, first=first, seed=seed)
    for batch in batches:
        whole.add(batch)
    return whole.result()


class DuplicatesPass:
    """The same for who reads the batches itself: add each, then ask for the result."""

    def __init__(
        self,
        *,
        threshold: float = THRESHOLD,
        shingle: int = SHINGLE,
        max_rows: int = MAX_ROWS,
        first: int = FIRST,
        seed: int = 0,
    ) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"the threshold {threshold:g} is no similarity; give one above 0 and at most 1")
        if shingle < 1 or max_rows < 1:
            raise ValueError("`shingle` and `max_rows` count characters and rows; give 1 or more")
        self._threshold, self._shingle = threshold, shingle
        self._max_rows, self._first = max_rows, first
        self._about: list[pl.DataFrame] = []
        self._count = 0
        self._pool = Pool(max_rows, threshold=threshold, shingle=shingle, seed=seed)

    def add(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Take a batch of rows in."""
        frame = frame_of(batch)
        if not frame.height:
            return
        keys = content_keys(frame)
        split = pl.repeat(TRAIN, frame.height, eager=True)
        if "split" in frame.columns:
            split = frame["split"].cast(pl.String).fill_null(TRAIN)
        rows = np.arange(frame.height) + self._count + 1
        about = pl.DataFrame({"row": rows, "key": keys, "split": split, "label": _labels(frame)})
        self._about.append(about.cast({"split": pl.Categorical}))
        self._count += frame.height
        said = [each.table.filter(pl.col("role").fill_null("") != "system") for each in texts_of(frame)]
        trained = (split == TRAIN).to_numpy()
        self._pool.add(rows, high_halves(keys), trained, joined(said, frame.height), asset_keys(frame))

    def result(self, tick: Callable[[int], None] = lambda rows: None) -> Duplicates:
        """What all batches so far repeat. `tick` is called with the number of rows every now and then."""
        found = twins(self._pool.contents(), self._threshold, lambda: tick(self._count))
        exact, near, leaked, leaked_near = (_Told(self._first) for _ in range(4))
        families = Families(self._count)
        held_out = conflicting = compared = 0
        for every in self._parts():
            tick(self._count)
            repeats = every.filter(pl.col("row") != pl.col("first"))
            exact.add(repeats, twin="first")
            similar = every.join(found.earlier, on="row").join(repeats, on="row", how="anti")
            near.add(similar)
            families.add(repeats["row"], repeats["first"], exact=True)
            families.add(similar["row"], similar["twin"], exact=False)
            others = every.filter(pl.col("split") != TRAIN)
            leaked.add(others.filter(pl.col("trained").is_not_null()), twin="trained")
            leaking = every.join(found.trained, on="row").select("key", "twin", "similar")
            leaked_near.add(others.filter(pl.col("trained").is_null()).join(leaking, on="key"))
            held_out += others.height
            conflicting += int((every["labels"] > 1).sum())
            cutoffs = self._pool.cutoffs[(every["split"] == TRAIN).cast(pl.Int8).to_numpy()]
            compared += int((high_halves(every["key"]) <= cutoffs).sum())
        return Duplicates(
            rows=self._count,
            exact=exact.count,
            near=near.count,
            held_out=held_out,
            leaked_exact=leaked.count,
            leaked_near=leaked_near.count,
            conflicting_labels=conflicting,
            exact_first=exact.first(),
            near_first=near.first(),
            leaked_first=leaked.first(leaked_near),
            threshold=self._threshold,
            shingle=self._shingle,
            compared=compared,
            clusters=families.count(),
            largest=families.largest(self._first),
        )

    def _parts(self) -> Iterator[pl.DataFrame]:
        """All rows in parts that share no content: with the first row of the same content, the first in train, and how
        many labels the content has."""
        count = -(-self._count // self._max_rows)
        for part in range(count):
            rows = pl.concat([each.filter(pl.col("key") % count == part) for each in self._about])
            contents = rows.group_by("key").agg(
                first=pl.col("row").min(),
                trained=pl.col("row").filter(pl.col("split") == TRAIN).min(),
                labels=pl.col("label").drop_nulls().n_unique(),
            )
            yield rows.drop("label").join(contents, on="key", maintain_order="left")


class _Told:
    """How many rows have a twin of one kind, and the first of them."""

    def __init__(self, number: int) -> None:
        self.count, self._number = 0, number
        self._first: list[pl.DataFrame] = []

    def add(self, rows: pl.DataFrame, twin: str = "") -> None:
        """Count rows with the columns `twin` and `similar`; with another column for the twin, they say the same."""
        self.count += rows.height
        if twin:
            rows = rows.with_columns(twin=pl.col(twin), similar=pl.lit(1.0))
        rows = rows.select("row", pl.col("split").cast(pl.String), "twin", "similar", exact=pl.lit(bool(twin)))
        self._first.append(rows.bottom_k(self._number, by="row"))

    def first(self, *others: "_Told") -> list[Twin]:
        """The first of these and some others."""
        parts = [table for each in (self, *others) for table in each._first]
        rows = pl.concat(parts).bottom_k(self._number, by="row").sort("row") if parts else pl.DataFrame()
        return [Twin(*values) for values in rows.iter_rows()]


def _labels(frame: pl.DataFrame) -> pl.Series:
    """A hash of each row's labels, null where it has none; only good within this process."""
    labels = labels_of(frame)
    if labels is None:
        return pl.repeat(None, frame.height, dtype=pl.UInt64, eager=True)
    named = labels.list.sort().list.join("\n")
    return pl.select(pl.when(named.is_not_null()).then(named.hash())).to_series()
