"""Bytes of a file, unpacked as they are read; what is in them is not known here."""

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import zstandard

CHUNK_BYTES = 4 << 20
#: Four compressed bytes can stand for 128 KiB, and what a piece stands for is in memory at once.
ZSTD_PIECE_BYTES = 1024


#: Rows are seldom packed to a twentieth of their size; a file that goes far beyond is made to fill a machine.
MAX_RATIO = 200
ALWAYS_ALLOWED_BYTES = 1 << 30


class DamagedError(ValueError):
    """The file is cut short, or no file of its kind."""


class BombError(ValueError):
    """The file holds far more than its size tells."""


def unpacked(
    file: BinaryIO, compression: str, always_allowed: int = ALWAYS_ALLOWED_BYTES, size: int | None = None
) -> Iterator[bytes]:
    """Yield the content in pieces of some MiB at most, without a byte order mark.

    A file is read from its beginning, one of known `size` from where it is. Raises DamagedError at a fault, and
    BombError beyond 200 times the file's size and what is always allowed.
    """
    if size is None:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
    allowed = max(always_allowed, MAX_RATIO * size)
    try:
        for chunk in _without_mark(_gathered(_pieces(file, compression))):
            allowed -= len(chunk)
            if compression and allowed < 0:
                raise BombError(compression)
            yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise DamagedError(compression) from error


def _pieces(file: BinaryIO, compression: str) -> Iterator[bytes]:
    if compression == "gz":
        with gzip.open(file) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
    elif compression == "zst":
        yield from _from_zstd(file)
    else:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _from_zstd(file: BinaryIO) -> Iterator[bytes]:
    """Unpack frame by frame: zstandard's own reader takes a file that was cut short for a whole one."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    begun = False
    while compressed := file.read(CHUNK_BYTES // 16):
        for start in range(0, len(compressed), ZSTD_PIECE_BYTES):
            piece = compressed[start : start + ZSTD_PIECE_BYTES]
            while piece:
                begun = True
                yield frame.decompress(piece)
                piece = b""
                if frame.eof:
                    piece = frame.unused_data
                    frame = zstandard.ZstdDecompressor().decompressobj()
                    begun = False
    if begun:
        raise EOFError


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Pieces of a useful size out of crumbs."""
    held = bytearray()
    for piece in pieces:
        if not held and len(piece) >= CHUNK_BYTES:
            yield piece
            continue
        held += piece
        if len(held) >= CHUNK_BYTES:
            yield bytes(held)
            held = bytearray()
    if held:
        yield bytes(held)


def _without_mark(chunks: Iterator[bytes]) -> Iterator[bytes]:
    first = next(chunks, b"")
    while len(first) < 3 and (chunk := next(chunks, None)) is not None:
        first += chunk
    if first := first.removeprefix(b"\xef\xbb\xbf"):
        yield first
    yield from chunks
