"""The chunks of a file on their way in: their sizes, checksums and compression; which file it is is not known here."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import zstandard

from kit.rpc.errors import Invalid
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors

MAX_CHUNK_BYTES = 2 << 20


def size_of(chunk: dataset.WriteUploadRequest) -> int:
    """How many bytes of the file a chunk holds. Raises Invalid for one that does not say so."""
    if chunk.compression != dataset.CHUNK_COMPRESSION_ZSTD:
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


def joined(chunks: Sequence[dataset.WriteUploadRequest]) -> bytes:
    """The bytes of chunks that follow one another. Raises Invalid for one that does not have its checksum."""
    return b"".join(map(_bytes, chunks))


def _bytes(chunk: dataset.WriteUploadRequest) -> bytes:
    data = chunk.data
    if chunk.compression == dataset.CHUNK_COMPRESSION_ZSTD:
        try:
            data = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
        except zstandard.ZstdError:
            raise _damaged(chunk) from None
    if zlib.crc32(data) != chunk.crc32:
        raise _damaged(chunk)
    return data


def _damaged(chunk: dataset.WriteUploadRequest) -> Invalid:
    return Invalid(
        f"the chunk at byte {chunk.offset} does not have its checksum; send it again",
        reason=errors.ERROR_REASON_CHECKSUM_MISMATCH,
    )
