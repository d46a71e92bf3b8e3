"""Rows out of a blob of canonical JSON lines; it does not know whose they are."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sluice.rows import split_of

PIECE_BYTES = 1024 * 1024


async def lines_of_split(blob: AsyncIterator[bytes], split: str, max_rows: int) -> AsyncIterator[bytes]:
    """Yields pieces of whole lines of the rows in ``split`` (all when empty), at most ``max_rows`` (0: no limit).

    A piece is at most 1 MiB, unless one row alone is longer.
    """
    gathered, taken = bytearray(), 0
    async for line in _lines(blob):
        if split and split_of(line) != split:
            continue
        if gathered and len(gathered) + len(line) >= PIECE_BYTES:
            yield bytes(gathered)
            gathered = bytearray()
        gathered += line + b"\n"
        taken += 1
        if taken == max_rows:
            break
    if gathered:
        yield bytes(gathered)


async def _lines(blob: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in blob:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line
