"""A file in messages of its bytes, compressed where the way is slow; where they go is not known here."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from kit.rpc.errors import Invalid
from sluice.dataset import v1 as dataset

MESSAGE_BYTES = 1 << 20
#: Messages are compressed where they leave more slowly than this, some 200 Mbit/s; a faster way gains nothing by it.
SLOW_BYTES_S = 25e6
#: What has to be sent before the speed is known.
MEASURED_BYTES = 4 << 20


async def chunks(
    upload: dataset.Upload,
    path: Path,
    progress: Callable[[int, int], None],
    room: Callable[[int], Awaitable[None]],
) -> AsyncIterator[dataset.WriteUploadRequest]:
    """Yields what the suite does not have yet, in order; ``progress`` hears how many bytes of how many have gone.

    ``room`` is awaited before each, with where in the file it ends. Raises Invalid for a file that becomes shorter
    meanwhile.
    """
    offset, name, begun = upload.committed_bytes, upload.name, time.monotonic()
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := await asyncio.to_thread(file.read, min(MESSAGE_BYTES, upload.size_bytes - offset)):
            sent, taken_s = offset - upload.committed_bytes, time.monotonic() - begun
            slow = sent >= MEASURED_BYTES and sent < SLOW_BYTES_S * taken_s
            request = dataset.WriteUploadRequest(name=name, offset=offset, data=chunk, crc32=zlib.crc32(chunk))
            await room(offset + len(chunk))
            yield await asyncio.to_thread(_packed, request) if slow else request
            offset, name = offset + len(chunk), ""
            progress(offset, upload.size_bytes)
    if offset < upload.size_bytes:
        raise Invalid(f"`{path}` became shorter while it was sent; leave it alone and upload it again")


def _packed(request: dataset.WriteUploadRequest) -> dataset.WriteUploadRequest:
    """The chunk, compressed where that makes it smaller by a tenth or more."""
    import zstandard

    packed = zstandard.ZstdCompressor(level=1).compress(request.data)
    if len(packed) <= 0.9 * len(request.data):
        request.data, request.compression = packed, dataset.CHUNK_COMPRESSION_ZSTD
    return request
