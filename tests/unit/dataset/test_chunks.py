"""Chunks on their way in: what they hold, and what is refused before anything is unpacked."""

import zlib

import pytest
import zstandard

from kit.rpc.errors import Invalid
from services.dataset.uploads.chunks import MAX_CHUNK_BYTES, joined, size_of
from sluice.dataset import v1 as dataset

TEXT = b"what is my balance? " * 1000


def packed(data, raw, **given):
    crc32 = given.pop("crc32", zlib.crc32(raw))
    return dataset.WriteUploadRequest(data=data, crc32=crc32, compression=dataset.CHUNK_COMPRESSION_ZSTD, **given)


def test_compressed_and_plain_chunks_are_one_run_of_bytes():
    plain = dataset.WriteUploadRequest(data=TEXT, crc32=zlib.crc32(TEXT))
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
        dataset.WriteUploadRequest(data=TEXT, crc32=1),
    ],
    ids=["cut", "more after it", "other bytes", "other plain bytes"],
)
def test_damaged_chunks_are_refused(chunk):
    assert size_of(chunk) == len(TEXT)
    with pytest.raises(Invalid, match="does not have its checksum; send it again"):
        joined([chunk])
