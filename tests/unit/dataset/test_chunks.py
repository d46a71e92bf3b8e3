"""Chunks on their way in: what they hold, and what is refused before anything is unpacked."""

import asyncio
import zlib

import pytest
import zstandard

from kit.rpc.errors import Invalid
from services.dataset.uploads.chunks import MAX_CHUNK_BYTES, PIECE_BYTES, Chunk, Gathering, joined, size_of
from sluice.dataset import v1 as dataset

TEXT = b"what is my balance? " * 1000


def packed(data, raw, **given):
    crc32 = given.pop("crc32", zlib.crc32(raw))
    packing = dataset.CHUNK_COMPRESSION_ZSTD
    return Chunk.of(dataset.WriteUploadRequest(data=data, crc32=crc32, compression=packing, **given))


def test_compressed_and_plain_chunks_are_one_run_of_bytes():
    plain = Chunk.of(dataset.WriteUploadRequest(data=TEXT, crc32=zlib.crc32(TEXT)))
    small = packed(zstandard.compress(TEXT), TEXT, offset=len(TEXT))
    assert len(small.data) < len(TEXT) / 10
    assert size_of(small) == size_of(plain) == len(TEXT)
    assert joined([plain, small]) == TEXT + TEXT


@pytest.mark.parametrize(
    "data",
    [
        b"no frame",
        zstandard.compress(b""),
        zstandard.compress(bytes(MAX_CHUNK_BYTES + 1)),
        zstandard.ZstdCompressor(write_content_size=False).compress(TEXT),
    ],
    ids=["no frame", "nothing in it", "too much in it", "says no size"],
)
def test_a_frame_that_does_not_say_what_it_holds_is_refused_unopened(data):
    with pytest.raises(Invalid, match="byte 7 "):
        size_of(packed(data, TEXT, offset=7))


@pytest.mark.parametrize(
    "chunk",
    [
        packed(zstandard.compress(TEXT)[:-9], TEXT),
        packed(zstandard.compress(TEXT) + b"more", TEXT),
        packed(zstandard.compress(TEXT), TEXT, crc32=1),
        Chunk.of(dataset.WriteUploadRequest(data=TEXT, crc32=1)),
    ],
    ids=["cut", "more after it", "other bytes", "other plain bytes"],
)
def test_damaged_chunks_are_refused(chunk):
    assert size_of(chunk) == len(TEXT)
    with pytest.raises(Invalid, match="does not have its checksum; send it again"):
        joined([chunk])


def chunk(offset, size=1 << 20):
    return dataset.WriteUploadRequest(name="u", offset=offset, data=bytes(size))


async def test_a_fast_sender_fills_pieces():
    async def sender():
        for number in range(19):
            yield chunk(number << 20)

    sizes = [len(joined_of) << 20 async for joined_of in Gathering(sender()).pieces()]
    assert sizes == [*[PIECE_BYTES] * 4, 3 << 20]


async def test_a_chunk_of_a_slow_sender_waits_for_no_other():
    """So one chunk at most is sent again, whoever dies."""
    taken = asyncio.Event()

    async def sender():
        for number in range(2):
            yield chunk(number << 20)
            await taken.wait()
            taken.clear()

    async for chunks in Gathering(sender()).pieces():
        assert len(chunks) == 1
        taken.set()


async def test_what_a_sender_brought_that_is_cut_off_is_not_lost():
    brought = asyncio.Event()

    async def sender():
        yield chunk(0)
        brought.set()
        await asyncio.Event().wait()

    async def gathered():
        async for _ in gathering.pieces():
            raise AssertionError("no piece was full")

    gathering = Gathering(sender())
    task = asyncio.create_task(gathered())
    await brought.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [each.offset for each in gathering.rest()] == [0]
