"""Lines and JSON documents of a copy as frames of a bounded number of rows; what the columns mean is not known here.

Lines are cut into pieces of some MiB. A JSON document is mapped into memory and cut into its rows.
"""

from __future__ import annotations

import codecs
import gzip
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec
import polars as pl
import zstandard

from kit.rpc.errors import Invalid
from sluice.catalogue.mirror import Found
from sluice.catalogue.tables import BATCH_ROWS, sliced

CHUNK_BYTES = 8 << 20
#: The rows of a JSON document are indexed in memory, so that there is a limit.
MAX_JSON_BYTES = 2 << 30
#: A file in which lines are longer is of another format.
MAX_LINE_BYTES = 64 << 20


def json_lines(path: Path, found: Found) -> Iterator[pl.DataFrame]:
    """One JSON object a line; columns that a row lacks are null, or absent where all lack them."""
    for piece in _pieces(path):
        yield from _decoded(piece, found)


def lines(path: Path, found: Found) -> Iterator[pl.DataFrame]:
    """Lines of text, without the empty ones, as the column `line`."""
    for piece in _pieces(path):
        rows = pl.Series("line", piece.decode().replace("\r\n", "\n").split("\n"), dtype=pl.String)
        yield from sliced(rows.filter(rows != "").to_frame())


def json_document(path: Path, found: Found) -> Iterator[pl.DataFrame]:
    """A list of objects, at the top or under the key that the layout names; an object alone is one row."""
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise Invalid(
            f"`{path.name}` is a JSON document of more than {MAX_JSON_BYTES >> 30} GiB; write it as JSON lines"
        )
    if not size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        with memoryview(content) as view:
            yield from _documents(view, found, path)


def _documents(view: memoryview, found: Found, path: Path) -> Iterator[pl.DataFrame]:
    key = found.layout.rows
    document: msgspec.Raw | memoryview = view
    if key:
        fields = msgspec.json.decode(view, type=dict[str, msgspec.Raw])
        if key not in fields:
            raise Invalid(f"`{path.name}` has no `{key}` at its top; this copy is laid out otherwise")
        document = fields[key]
    if bytes(memoryview(document)[:64]).lstrip()[:1] == b"{":  # a file a row
        rows = [msgspec.Raw(document)]
    else:
        rows = msgspec.json.decode(document, type=list[msgspec.Raw])
    for start in range(0, len(rows), BATCH_ROWS):
        lines = [bytes(row).replace(b"\n", b" ").replace(b"\r", b" ") for row in rows[start : start + BATCH_ROWS]]
        yield from _decoded(b"\n".join(lines), found)


def _decoded(lines: bytes, found: Found) -> Iterator[pl.DataFrame]:
    if not lines or lines.isspace():
        return
    try:
        frame = pl.read_ndjson(lines, infer_schema_length=None)
    except pl.exceptions.SchemaError:  # a column is a list here and an object there: each is taken as text
        rows = pl.Series("row", lines.decode().split("\n"))
        rows = rows.filter(rows.str.contains(r"\S"))
        frame = pl.DataFrame({name: rows.str.json_path_match(f"$['{name}']") for name in found.layout.columns})
    yield from sliced(frame)


def _pieces(path: Path) -> Iterator[bytes]:
    """Whole lines of a file, some MiB at a time."""
    with opened(path) as file:
        rest = file.read(CHUNK_BYTES).removeprefix(codecs.BOM_UTF8)
        while chunk := file.read(CHUNK_BYTES):
            piece, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                yield piece
            if len(rest) > MAX_LINE_BYTES:
                raise Invalid(f"`{path.name}` has a line of more than {MAX_LINE_BYTES >> 20} MiB; it is not of lines")
        yield rest


def opened(path: Path) -> IO[bytes] | gzip.GzipFile:
    """A file for reading, decompressed where its name ends in .gz or .zst."""
    if path.name.endswith(".gz"):
        return gzip.open(path)
    if path.name.endswith(".zst"):
        return zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True)
    return path.open("rb")
