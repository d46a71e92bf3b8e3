"""A split in a mirror as one file of canonical rows; where that file goes is not known here."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import zstandard

from kit.rpc.errors import Invalid
from sluice.catalogue.entry import Entry
from sluice.catalogue.mapping import canonical, wanted
from sluice.catalogue.mirror import Found
from sluice.catalogue.sources import frames
from sluice.catalogue.template import TemplateError

LEVEL = 3


@dataclass
class Written:
    """How many rows a file got, and how many were incomplete (a hidden answer, an empty turn) and are not in it."""

    rows: int = 0
    left_out: int = 0


def write(
    entry: Entry, found: Found, target: Path, limit: int = 0, progress: Callable[[int], None] | None = None
) -> Written:
    """Writes canonical rows as zstd-compressed JSON lines into ``target``, which only the owner may read.

    The same mirror gives the same bytes. ``limit`` ends it after so many rows, 0 means all; ``progress`` gets the
    number of rows written so far. Raises Invalid when the mirror is laid out otherwise, or no row is complete.
    """
    written = Written()
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    with open(target, "xb", opener=_private) as file, compressor.stream_writer(file) as sink:
        for frame in frames(found):
            try:
                meant = wanted(frame, found.layout)
                rows = canonical(meant, found.layout.mapping)
            except TemplateError as error:
                raise Invalid(f"{error}; this copy of `{entry.id}` is laid out otherwise") from error
            except pl.exceptions.PolarsError as error:  # its message may quote a row
                what = type(error).__name__
                raise Invalid(f"this copy of `{entry.id}` has values that its mapping cannot take ({what})") from None
            written.left_out += len(meant) - len(rows)
            rows = rows.head(limit - written.rows) if limit else rows
            buffer = io.BytesIO()
            rows.write_ndjson(buffer)
            sink.write(buffer.getbuffer())
            written.rows += len(rows)
            if progress:
                progress(written.rows)
            if limit and written.rows >= limit:
                break
    if not written.rows:
        raise Invalid(_nothing(entry, found, written))
    return written


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _nothing(entry: Entry, found: Found, written: Written) -> str:
    if not written.left_out:
        return f"the split `{found.split}` of `{entry.id}` holds no rows there; sync it again"
    others = [split for split in entry.splits if split != found.split]
    other = f"; try --split {others[0]}" if others else ""
    return (
        f"none of the {written.left_out} rows of the split `{found.split}` of `{entry.id}` is complete:"
        f" their answers may be hidden{other}"
    )
