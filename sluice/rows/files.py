"""Files of rows as numbered pieces of JSON, in batches; what a row should hold is not known here."""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import zstandard

from sluice.rows.violations import RefusedError, Violation

CHUNK_BYTES = 1 << 20
#: Four compressed bytes can stand for 128 KiB, and what a piece stands for is in memory at once.
ZSTD_PIECE_BYTES = 1024
#: A row travels in one message, and a message holds 4 MiB.
MAX_ROW_BYTES = 3 << 20
MAX_ARRAY_BYTES = 512 << 20
Batch = list[tuple[int, bytes] | Violation]


class UnknownFormatError(ValueError):
    """The file's name tells no format that can be read."""


def check_file_name(file_name: str) -> tuple[str, str]:
    """Return (format, compression), such as ("jsonl", "gz"); UnknownFormatError says what can be read."""
    name, compression = file_name.lower(), ""
    for suffix in ("gz", "zst"):
        if name.endswith(f".{suffix}"):
            name, compression = name.removesuffix(f".{suffix}"), suffix
    for suffix in ("jsonl", "ndjson", "json"):
        if name.endswith(f".{suffix}"):
            return suffix.replace("ndjson", "jsonl"), compression
    raise UnknownFormatError(f"`{file_name}` is of no known format; give .jsonl or .json, also with .gz or .zst")


def read_rows(source: Path | bytes, file_name: str) -> Iterator[Batch]:
    """Yield batches of (row number from 1, its JSON); blank lines are skipped but counted.

    Memory stays at some MiB for JSONL of any size; a JSON array is held once, up to 512 MiB. What cannot be
    cut into rows is a Violation in the batch. Raises UnknownFormatError before reading.
    """
    form, compression = check_file_name(file_name)
    return _read(source, form, compression)


def _read(source: Path | bytes, form: str, compression: str) -> Iterator[Batch]:
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb", buffering=0) as file:
        chunks = _without_mark(_decompressed(file, compression))
        try:
            first = next(chunks, b"")
            if form == "json" and first.lstrip()[:1] != b"{":  # JSONL is often called .json
                yield _array(first, chunks)
            else:
                yield from _lines(first, chunks)
        except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError):
            expected = f"a whole .{compression} file"
            yield [Violation(0, "", "damaged-file", expected, "a damaged or cut one", "compress it again")]


def _decompressed(file: BinaryIO | io.FileIO | io.BytesIO, compression: str) -> Iterator[bytes]:
    if compression == "gz":
        with gzip.open(file) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
    elif compression == "zst":
        yield from _from_zstd(file)
    else:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _from_zstd(file: BinaryIO | io.FileIO | io.BytesIO) -> Iterator[bytes]:
    """Decompress frame by frame: zstandard's own reader takes a file that was cut short for a whole one."""
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


def _without_mark(chunks: Iterator[bytes]) -> Iterator[bytes]:
    first = b""
    while len(first) < 3 and (chunk := next(chunks, None)) is not None:
        first += chunk
    yield first.removeprefix(b"\xef\xbb\xbf")
    yield from chunks


def _lines(first: bytes, chunks: Iterator[bytes]) -> Iterator[Batch]:
    number, rest, skipping = 1, b"", False
    chunk: bytes | None = first
    while chunk is not None:
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        if skipping and lines:  # the end of a row that was too long
            lines[0], skipping = b"", False
        yield [(at, line) for at, line in enumerate(lines, number) if line and not line.isspace()]
        number += len(lines)
        if skipping:
            rest = b""
        elif len(rest) > MAX_ROW_BYTES:
            yield [_too_large(number)]
            rest, skipping = b"", True
        chunk = next(chunks, None)
    if rest and not rest.isspace():
        yield [(number, rest)]


def _too_large(row: int) -> Violation:
    return Violation(row, "", "row-too-large", f"at most {MAX_ROW_BYTES >> 20} MiB a row", "more", "split the row")


def _array(first: bytes, chunks: Iterator[bytes]) -> Batch:
    content = bytearray(first)
    for chunk in chunks:
        content += chunk
        if len(content) > MAX_ARRAY_BYTES:
            limit = f"at most {MAX_ARRAY_BYTES >> 20} MiB of JSON array"
            return [Violation(0, "", "file-too-large", limit, "more", "write JSONL, one row a line: no limit")]
    try:
        rows = msgspec.json.decode(content, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [_broken_array(content)]
    return [
        (number, bytes(row)) if len(row) <= MAX_ROW_BYTES else _too_large(number) for number, row in enumerate(rows, 1)
    ]


def _broken_array(content: bytearray) -> Violation:
    """Walk the array with the slow parser to find the row that breaks it."""
    row, place = 1, 0
    try:
        text = content.decode()
        place = text.index("[") + 1
        while True:
            place += len(text[place : place + 4096]) - len(text[place : place + 4096].lstrip(" \t\r\n,"))
            _, place = json.JSONDecoder().raw_decode(text, place)
            row += 1
    except UnicodeDecodeError:
        return RefusedError("", "wrong-encoding", "UTF-8", "other bytes", "save the file as UTF-8").at(0)
    except (ValueError, RecursionError):
        found = f"no JSON in line {text.count(chr(10), 0, place) + 1} of the file"
        return Violation(row, "", "malformed-json", "an array of objects", found, "write the file with a JSON library")
