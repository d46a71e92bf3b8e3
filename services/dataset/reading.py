"""Rows out of stored parts, as Arrow or as JSON lines; it does not know whose they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from services.dataset.governance import audit
from services.dataset.parts import PartRow

if TYPE_CHECKING:
    import pyarrow as pa

#: What goes into one message; a row alone may be longer.
PIECE_BYTES = 1 << 20
#: What a batch has on average, so that it and what is said about it are one message.
BATCH_BYTES = PIECE_BYTES * 15 // 16
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


async def arrow_stream(parts: Sequence[PartRow], fetch: Fetch, wanted: Wanted) -> AsyncIterator[bytes]:
    """Yields an Arrow IPC stream in pieces of about 1 MiB. Raises Invalid (UNKNOWN_COLUMN)."""
    begun = False
    async for table in _ahead(_tables(parts, fetch, wanted)):
        if not begun:
            yield table.schema.serialize().to_pybytes()
            begun = True
        audit.count_rows(len(table))
        for batch in table.to_batches(max_chunksize=max(1, len(table) * BATCH_BYTES // max(1, table.nbytes))):
            with memoryview(batch.serialize()) as message:
                for start in range(0, len(message), PIECE_BYTES):  # one, but where rows are of unlike lengths
                    yield bytes(message[start : start + PIECE_BYTES])
    yield _END


async def json_lines(parts: Sequence[PartRow], fetch: Fetch, wanted: Wanted) -> AsyncIterator[bytes]:
    """Yields whole JSON lines, about 1 MiB together unless one row alone is longer."""
    from services.dataset import parquet

    async for table in _ahead(_tables(parts, fetch, wanted)):
        for piece in await asyncio.to_thread(parquet.lines, table):
            yield piece


async def _tables(parts: Sequence[PartRow], fetch: Fetch, wanted: Wanted) -> AsyncGenerator[pa.Table]:
    """The rows wanted, a row group at a time; at least one table, which may be empty."""
    from services.dataset import parquet

    skip, left = wanted.start, wanted.most or None
    for index, part in enumerate(parts):
        rows = part.rows_of(wanted.split)
        if skip >= rows and index < len(parts) - 1:
            skip -= rows
            continue
        content = await fetch(part.digest)
        groups = parquet.groups(content, wanted.columns, wanted.split, wanted.assets)
        while (table := await asyncio.to_thread(next, groups, None)) is not None:
            table, skip = table.slice(skip), max(0, skip - len(table))
            table = table if left is None else table.slice(0, left)
            left = None if left is None else left - len(table)
            yield table
            if left == 0:
                return


async def _ahead(tables: AsyncGenerator[pa.Table]) -> AsyncIterator[pa.Table]:
    """The same tables; the next is read while one is used."""
    coming = asyncio.ensure_future(anext(tables, None))
    try:
        while (table := await coming) is not None:
            coming = asyncio.ensure_future(anext(tables, None))
            yield table
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await tables.aclose()
