"""The rows of one version, read as columns when they are asked for; nothing of them is kept."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.rpc.errors import Invalid
from sluice.client import pictures

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
    from PIL import Image

#: Rows that a worker of a data loader asks for at a time.
SHARD_ROWS = 16_384
#: Rows whose images are in memory at once.
DECODED_AT_ONCE = 16


@dataclass(frozen=True)
class OpenedVersion:
    """What ``client.datasets.open("bank-intents@3", split="train")`` gives.

    ``pieces(start, most)`` asks the suite for an Arrow stream of rows from ``start`` on, ``assets(digests, png)`` for
    the bytes of what rows name. ``reopen`` gives the same in another process.
    """

    name: str
    split: str
    row_count: int
    pieces: Callable[[int, int], Iterator[memoryview]]
    assets: Callable[[Sequence[str], bool], Iterator[bytes]]
    reopen: Callable[[], OpenedVersion] = field(repr=False)

    def __len__(self) -> int:
        return self.row_count

    def batches(self, start: int = 0, most: int = 0) -> Iterator[pa.RecordBatch]:
        """The rows from ``start`` on, at most ``most`` (0: all), some thousand at a time, as they come."""
        with self._opened(start, most) as stream:
            yield from stream

    def arrow(self) -> pa.Table:
        """All rows as one table."""
        with self._opened(0, 0) as stream:
            return stream.read_all()

    def polars(self) -> pl.DataFrame:
        """All rows as a Polars frame."""
        frame: pl.DataFrame = _library("polars").from_arrow(self.arrow())
        return frame

    def dataset(self, *, images: bool = False) -> Any:
        """All rows as a ``datasets.Dataset``, which trainers take.

        With ``images`` the digests in rows become images (Pillow's), lists of frames and sounds (`array` and
        `sampling_rate`), fetched and decoded when a row is looked at.
        """
        rows = _library("datasets").Dataset(self.arrow())
        return rows.with_transform(pictures.Decoding(self.reopen, self.contents)) if images else rows

    def torch(self, shard_rows: int = SHARD_ROWS, *, images: bool = False) -> Any:
        """The rows as an ``IterableDataset`` that a torch ``DataLoader`` takes; each worker reads its own shards.

        With ``images`` each image is a tensor of shape (channels, height, width), uint8; see ``dataset``. With workers,
        give the loader ``multiprocessing_context="spawn"``: a connection does not survive a fork.
        """
        starts = list(range(0, self.row_count, shard_rows)) or [0]
        given = {"starts": starts, "shard_rows": shard_rows, "reopen": self.reopen, "images": images}
        return _library("datasets").IterableDataset.from_generator(_rows, gen_kwargs=given).with_format("torch")

    def contents(self, digests: Sequence[str]) -> Iterator[bytes]:
        """The bytes of images and sounds that rows name, in this order. Raises NotFound for others."""
        yield from self.assets(digests, False)

    def asset(self, digest: str, *, png: bool = False) -> bytes:
        """The bytes of one, as they came; with ``png`` as PNG, made by the suite. Raises NotFound."""
        return b"".join(self.assets([digest], png))

    def image(self, digest: str) -> Image.Image:
        """An image that rows name, decoded (Pillow's); of a DICOM file as a viewer shows it at first."""
        return pictures.image_of(self.asset(digest))

    @contextmanager
    def _opened(self, start: int, most: int) -> Iterator[pa.RecordBatchStreamReader]:
        pieces = self.pieces(start, most)
        ipc = _library("pyarrow").ipc
        aligned = ipc.IpcReadOptions(ensure_alignment=ipc.Alignment.DataTypeSpecific)  # a batch may begin at any byte
        yield ipc.open_stream(_Source(pieces), options=aligned)
        for _ in pieces:  # Arrow stops at its own end; the record of reads calls a read broken whose end nobody hears
            pass


class _Source:
    """Pieces as the file that Arrow reads: a batch that lies in one piece stays there, and is not copied out of it."""

    closed = False

    def __init__(self, pieces: Iterator[memoryview]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def read(self, size: int) -> memoryview | bytes:
        """The next ``size`` bytes, fewer at the end."""
        found: list[memoryview] = []
        while size and (rest := self._rest if len(self._rest) else next(self._pieces, None)) is not None:
            found.append(rest[:size])
            self._rest = rest[size:]
            size -= len(found[-1])
        return found[0] if len(found) == 1 else b"".join(found)

    def close(self) -> None:
        """The pieces end by themselves."""


def _rows(
    starts: Sequence[int], shard_rows: int, reopen: Callable[[], OpenedVersion], images: bool = False
) -> Iterator[dict[str, Any]]:
    opened = reopen()
    for start in starts:
        for batch in opened.batches(start, shard_rows):
            yield from _illustrated(batch, opened) if images else batch.to_pylist()


def _illustrated(batch: pa.RecordBatch, opened: OpenedVersion) -> Iterator[dict[str, Any]]:
    for place in range(0, len(batch), DECODED_AT_ONCE):
        columns = pictures.decoded(batch.slice(place, DECODED_AT_ONCE).to_pydict(), opened.contents)
        for row in zip(*columns.values(), strict=True):
            yield dict(zip(columns, row, strict=True))


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Invalid(f"reading rows this way takes the package `{name}`; install it with pip") from error
