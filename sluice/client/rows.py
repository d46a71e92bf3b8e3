"""The rows of one version, read as columns when they are asked for; nothing of them is kept."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.rpc.errors import Invalid
from sluice.rows.streams import Stream

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

#: Rows that a worker of a data loader asks for at a time.
SHARD_ROWS = 16_384
READ_BYTES = 1 << 20


@dataclass(frozen=True)
class OpenedVersion:
    """What ``client.datasets.open("bank-intents@3", split="train")`` gives.

    ``pieces(start, most)`` asks the suite for an Arrow stream of rows from ``start`` on. ``reopen`` gives the same
    in another process.
    """

    name: str
    split: str
    row_count: int
    pieces: Callable[[int, int], Iterator[bytes]]
    reopen: Callable[[], OpenedVersion] = field(repr=False)

    def __len__(self) -> int:
        return self.row_count

    def batches(self, start: int = 0, most: int = 0) -> Iterator[pa.RecordBatch]:
        """The rows from ``start`` on, at most ``most`` (0: all), some thousand at a time, as they come."""
        yield from self._stream(start, most)

    def arrow(self) -> pa.Table:
        """All rows as one table."""
        return self._stream(0, 0).read_all()

    def polars(self) -> pl.DataFrame:
        """All rows as a Polars frame."""
        frame: pl.DataFrame = _library("polars").from_arrow(self.arrow())
        return frame

    def dataset(self) -> Any:
        """All rows as a ``datasets.Dataset``, which trainers take."""
        return _library("datasets").Dataset(self.arrow())

    def torch(self, shard_rows: int = SHARD_ROWS) -> Any:
        """The rows as an ``IterableDataset`` that a torch ``DataLoader`` takes; each worker reads its own shards.

        With workers, give the loader ``multiprocessing_context="spawn"``: a connection does not survive a fork.
        """
        starts = list(range(0, self.row_count, shard_rows)) or [0]
        given = {"starts": starts, "shard_rows": shard_rows, "reopen": self.reopen}
        return _library("datasets").IterableDataset.from_generator(_rows, gen_kwargs=given).with_format("torch")

    def _stream(self, start: int, most: int) -> pa.RecordBatchStreamReader:
        return _library("pyarrow").ipc.open_stream(io.BufferedReader(Stream(self.pieces(start, most)), READ_BYTES))


def _rows(starts: Sequence[int], shard_rows: int, reopen: Callable[[], OpenedVersion]) -> Iterator[dict[str, Any]]:
    opened = reopen()
    for start in starts:
        for batch in opened.batches(start, shard_rows):
            yield from batch.to_pylist()


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Invalid(f"reading rows this way takes the package `{name}`; install it with pip") from error
