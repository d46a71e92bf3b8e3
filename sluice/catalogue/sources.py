"""The files of a split as frames of a bounded number of rows, whatever their format; it maps nothing."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import polars as pl
import zstandard

from kit.rpc.errors import Invalid
from sluice.catalogue import folders, lines, tables
from sluice.catalogue.mirror import Found


def frames(found: Found) -> Iterator[pl.DataFrame]:
    """Yields the rows of all files in order, at most some thousand at a time.

    Columns that the layout names and a JSON row lacks are absent or null. Raises Invalid naming the file that cannot
    be read, or lacks a column.
    """
    if gather := GATHERED.get(found.layout.format):
        yield from gather(found)
        return
    read = READERS[found.layout.format]
    for path in found.files:
        name = path.relative_to(found.root)
        try:
            yield from read(path, found)
        except (
            pl.exceptions.PolarsError,
            msgspec.DecodeError,
            tarfile.TarError,
            EOFError,
            zstandard.ZstdError,
        ) as error:
            what = found.layout.format
            raise Invalid(f"`{name}` cannot be read as {what} ({type(error).__name__}); sync it again") from None
        except (UnicodeDecodeError, gzip.BadGzipFile) as error:
            raise Invalid(f"`{name}` is damaged or no UTF-8 text ({type(error).__name__}); sync it again") from None


READERS: dict[str, Callable[[Path, Found], Iterable[pl.DataFrame]]] = {
    "parquet": tables.parquet,
    "arrow": tables.arrow,
    "csv": tables.delimited,
    "tsv": tables.delimited,
    "jsonl": lines.json_lines,
    "json": lines.json_document,
    "txt": lines.lines,
    "webdataset": folders.webdataset,
}
#: Those that take all files at once, as each of them is only a row.
GATHERED: dict[str, Callable[[Found], Iterable[pl.DataFrame]]] = {
    "documents": folders.texts_of,
    "images": folders.images,
}
