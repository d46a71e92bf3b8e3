"""Rows out of stored parts, as Arrow or as JSON lines; it does not know whose they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from services.dataset.governance import audit
from services.dataset.parts import PartRow

if TYPE_CHECKING:
    import pyarrow as pa

#: What goes into one message of JSON lines; a row alone may be longer.
PIECE_BYTES = 1 << 20
#: What a batch has on average: three processes hand each message over, so fewer are faster, and the first comes later.
BATCH_BYTES = 7 << 18
#: Batches of more are cut: a client of any language takes messages of 4 MiB.
MESSAGE_BYTES = 3 << 20
#: What the first batch is cut into, so that the first rows come soon.
FIRST_BYTES = 1 << 18
#: What is made into JSON lines at a time.
LINES_BYTES = 4 * PIECE_BYTES
#: What follows the last batch of an Arrow IPC stream.
_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
#: Gives the bytes of a blob by its digest.
Fetch = Callable[[str], Awaitable[bytes]]


class Wanted(NamedTuple):
    """Which rows: those of a split (empty: all), from `start` on, at most `most` (0: no limit), by columns.

    `assets` are the columns for assets that some part of the version has.
    """

    split: str = ""
    start: int = 0
    most: int = 0
    columns: Sequence[str] = ()
    assets: Sequence[str] = ()


async def arrow_stream(parts: Sequence[PartRow], fetch: Fetch, wanted: Wanted) -> AsyncIterator[memoryview]:
    """Yields an Arrow IPC stream in pieces of at most 3 MiB, mostly one a batch. Raises Invalid (UNKNOWN_COLUMN)."""
    size = FIRST_BYTES
    async for batch in _ahead(_batches(parts, fetch, wanted, BATCH_BYTES)):
        if size == FIRST_BYTES:
            yield memoryview(batch.schema.serialize())
        audit.count_rows(len(batch))
        most = max(1, len(batch) * size // max(1, batch.nbytes))
        for first in range(0, len(batch), most):
            message = memoryview(batch.slice(first, most).serialize())
            for start in range(0, len(message), MESSAGE_BYTES):  # one, but where rows are of unlike lengths
                yield message[start : start + MESSAGE_BYTES]
        size = MESSAGE_BYTES * 15 // 16  # what is said about a batch is in its message, too
    yield memoryview(_END)


async def json_lines(parts: Sequence[PartRow], fetch: Fetch, wanted: Wanted) -> AsyncIterator[bytes]:
    """Yields whole JSON lines, about 1 MiB together unless one row alone is longer."""
    from services.dataset import parquet

    async for batch in _ahead(_batches(parts, fetch, wanted, LINES_BYTES)):
        for piece in await asyncio.to_thread(parquet.lines, batch):
            yield piece


async def _batches(parts: Sequence[PartRow], fetch: Fetch, wanted: Wanted, size: int) -> AsyncGenerator[pa.RecordBatch]:
    """The rows wanted, some ``size`` bytes at a time; at least one batch, which may be empty."""
    from services.dataset import parquet

    skip, left = wanted.start, wanted.most or None
    for index, part in enumerate(parts):
        rows = part.rows_of(wanted.split)
        if skip >= rows and index < len(parts) - 1:
            skip -= rows
            continue
        content = await fetch(part.digest)
        batches = parquet.batches(content, wanted.columns, wanted.split, wanted.assets, size)
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            batch, skip = batch.slice(skip), max(0, skip - len(batch))
            batch = batch if left is None else batch.slice(0, left)
            left = None if left is None else left - len(batch)
            yield batch
            if left == 0:
                return


async def _ahead(batches: AsyncGenerator[pa.RecordBatch]) -> AsyncIterator[pa.RecordBatch]:
    """The same batches; the next is read while one is used."""
    coming = asyncio.ensure_future(anext(batches, None))
    try:
        while (batch := await coming) is not None:
            coming = asyncio.ensure_future(anext(batches, None))
            yield batch
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await batches.aclose()
