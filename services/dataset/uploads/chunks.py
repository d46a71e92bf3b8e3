"""The chunks of a file on their way in: their sizes, checksums and compression; which file it is is not known here."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import NamedTuple, Self

import zstandard

from kit.rpc.errors import Invalid, StateConflict
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors

MAX_CHUNK_BYTES = 2 << 20
#: Bytes that are gathered before they are written as one piece: half of what a sender may be ahead, so that one half
#: comes while the other is stored.
PIECE_BYTES = 4 << 20
#: Chunks of one piece: a sender of single bytes gets small pieces, and not our memory.
PIECE_CHUNKS = 1024
#: How long a chunk waits at most for others of its piece. So a slow sender sends little again when we die.
GATHER_S = 0.2


class Chunk(NamedTuple):
    """A stretch of a file as it came; a request copies its bytes each time that somebody looks at them."""

    offset: int
    data: bytes
    crc32: int
    is_packed: bool

    @classmethod
    def of(cls, request: dataset.WriteUploadRequest) -> Self:
        """What a request brings."""
        is_packed = request.compression == dataset.CHUNK_COMPRESSION_ZSTD
        return cls(request.offset, request.data, request.crc32, is_packed)


class Gathering:
    """The chunks of one stream, gathered into pieces: full ones, and smaller ones where the sender is slow."""

    def __init__(self, requests: AsyncIterator[dataset.WriteUploadRequest]) -> None:
        self.name = ""
        self._requests = aiter(requests)
        self._chunks: list[Chunk] = []
        self._place = -1

    async def pieces(self) -> AsyncGenerator[list[Chunk]]:
        """Yields the chunks of each piece. Raises Invalid and StateConflict for what is unnamed, or out of order."""
        clock, coming = asyncio.get_running_loop().time, self._next()
        due = clock() + GATHER_S
        try:
            while True:
                await asyncio.wait([coming], timeout=max(0.0, due - clock()) if self._chunks else None)
                if coming.done():
                    if (request := coming.result()) is None:
                        break
                    coming = self._next()
                    self._add(request.name, Chunk.of(request))
                if self._chunks and (self._is_full() or clock() >= due):
                    yield self.rest()
                    due = clock() + GATHER_S
        finally:
            coming.cancel()
        if self._chunks:
            yield self.rest()
        if not self.name:
            raise unnamed()

    def rest(self) -> list[Chunk]:
        """The chunks that have come and are of no piece yet: what is left when the sender is cut off."""
        chunks, self._chunks = self._chunks, []
        return chunks

    def _next(self) -> asyncio.Future[dataset.WriteUploadRequest | None]:
        return asyncio.ensure_future(anext(self._requests, None))

    def _add(self, name: str, chunk: Chunk) -> None:
        self.name = self.name or name
        if not self.name or name not in ("", self.name):
            raise unnamed()
        if self._place >= 0 and chunk.offset != self._place:
            raise wrong_offset(chunk.offset, self._place)
        size = size_of(chunk)
        self._chunks.append(chunk)
        self._place = chunk.offset + size

    def _is_full(self) -> bool:
        return self._place - self._chunks[0].offset >= PIECE_BYTES or len(self._chunks) >= PIECE_CHUNKS


def size_of(chunk: Chunk) -> int:
    """How many bytes of the file a chunk holds. Raises Invalid for one that does not say so."""
    if not chunk.is_packed:
        return len(chunk.data)
    try:
        size = zstandard.frame_content_size(chunk.data)
    except zstandard.ZstdError:
        raise _damaged(chunk) from None
    if not 0 < size <= MAX_CHUNK_BYTES:
        raise Invalid(
            f"the chunk at byte {chunk.offset} does not say that it holds 1 to {MAX_CHUNK_BYTES} bytes; send it again",
            violations=[("data", "is no Zstandard frame of a known size")],
        )
    return size


def joined(chunks: Sequence[Chunk]) -> bytes:
    """The bytes of chunks that follow one another. Raises Invalid for one that does not have its checksum."""
    return b"".join(map(_bytes, chunks))


def _bytes(chunk: Chunk) -> bytes:
    data = chunk.data
    if chunk.is_packed:
        try:
            data = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
        except zstandard.ZstdError:
            raise _damaged(chunk) from None
    if zlib.crc32(data) != chunk.crc32:
        raise _damaged(chunk)
    return data


def unnamed() -> Invalid:
    """For a stream that does not say what it is for."""
    return Invalid(
        "the first chunk names the upload and the others name the same or none",
        violations=[("name", "is missing, or not that of the first chunk")],
    )


def wrong_offset(offset: int, expected: int) -> StateConflict:
    """For a chunk that does not start where the bytes before it end."""
    return StateConflict(
        f"the chunk starts at byte {offset}, but the upload goes on at {expected}; send from there",
        reason=errors.ERROR_REASON_WRONG_OFFSET,
        metadata={"committed_bytes": str(expected)},
    )


def _damaged(chunk: Chunk) -> Invalid:
    return Invalid(
        f"the chunk at byte {chunk.offset} does not have its checksum; send it again",
        reason=errors.ERROR_REASON_CHECKSUM_MISMATCH,
    )
