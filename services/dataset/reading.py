"""Rows out of stored parts, as Arrow or as JSON lines; it does not know whose they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from services.dataset.parts import PartRow

if TYPE_CHECKING:
    import pyarrow as pa

#: What goes into one message; a row alone may be longer.
PIECE_BYTES = 1 << 20
#: What follows the last batch of an Arrow IPC stream.
_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
#: Gives the bytes of a blob by its digest.
Fetch = Callable[[str], Awaitable[bytes]]


class Wanted(NamedTuple):
    """Which rows: those of a split (empty: all), from `start` on, at most `most` (0: no limit), by columns."""

    split: str = ""
    start: int = 0
    most: int = 0
    columns: Sequence[str] = ()


async def arrow_stream(parts: Sequence[PartRow], fetch: Fetch, wanted: Wanted) -> AsyncIterator[bytes]:
    """Yields an Arrow IPC stream in pieces of about 1 MiB. Raises Invalid (UNKNOWN_COLUMN)."""
    begun = False
    async for table in _tables(parts, fetch, wanted):
        if not begun:
            yield bytes(table.schema.serialize())
            begun = True
        for batch in table.to_batches():
            with memoryview(await asyncio.to_thread(batch.serialize)) as message:
                for start in range(0, len(message), PIECE_BYTES):
                    yield bytes(message[start : start + PIECE_BYTES])
    yield _END


async def json_lines(parts: Sequence[PartRow], fetch: Fetch, wanted: Wanted) -> AsyncIterator[bytes]:
    """Yields whole JSON lines, about 1 MiB together unless one row alone is longer."""
    async for table in _tables(parts, fetch, wanted):
        for piece in await asyncio.to_thread(_lines, table):
            yield piece


def _lines(table: pa.Table) -> list[bytes]:
    from services.dataset import parquet

    return list(parquet.lines(table))


async def _tables(parts: Sequence[PartRow], fetch: Fetch, wanted: Wanted) -> AsyncIterator[pa.Table]:
    """The rows wanted, a row group at a time; at least one table, which may be empty."""
    from services.dataset import parquet

    skip, left = wanted.start, wanted.most or None
    for index, part in enumerate(parts):
        rows = part.rows_of(wanted.split)
        if skip >= rows and index < len(parts) - 1:
            skip -= rows
            continue
        content = await fetch(part.digest)
        groups = parquet.groups(content, wanted.columns, wanted.split)
        while (table := await asyncio.to_thread(next, groups, None)) is not None:
            table, skip = table.slice(skip), max(0, skip - len(table))
            table = table if left is None else table.slice(0, left)
            left = None if left is None else left - len(table)
            yield table
            if left == 0:
                return
