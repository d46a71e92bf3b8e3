"""Rows out of a blob of canonical JSON lines; it does not know whose they are."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sluice.rows import split_of

PIECE_BYTES = 1024 * 1024


async def lines_of_split(blob: AsyncIterator[bytes], split: str, max_rows: int) -> AsyncIterator[bytes]:
    """Yields pieces of whole lines, each about 1 MiB, of the rows in ``split`` (all when empty), at most ``max_rows``."""
    rest, gathered, taken = b"", bytearray(), 0
    async for piece in blob:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if split and split_of(line) != split:
                continue
            if max_rows and taken == max_rows:
                break
            gathered += line + b"\n"
            taken += 1
        if len(gathered) >= PIECE_BYTES:
            yield bytes(gathered)
            gathered = bytearray()
        if max_rows and taken == max_rows:
            break
    if gathered:
        yield bytes(gathered)
