"""A stored part as tables; imported when rows are first read, since Arrow weighs more than the service."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from kit.rpc.errors import Invalid
from services.dataset.reading import BATCH_BYTES, PIECE_BYTES
from sluice.errors import v1 as errors
from sluice.rows.columns import ASSETS
from sluice.rows.parts import ABOUT, KEY, SPLIT


def batches(
    content: bytes, columns: Sequence[str], split: str, assets: Sequence[str] = (), size: int = BATCH_BYTES
) -> Iterator[pa.RecordBatch]:
    """The rows of a split (all when empty), some ``size`` bytes at a time, of these columns (empty: the canonical).

    Of ``assets``, columns that other parts have, and of those that any part might have, a part without them has nulls.
    Raises Invalid (UNKNOWN_COLUMN).
    """
    file = pyarrow.parquet.ParquetFile(pa.BufferReader(content))
    there = file.schema_arrow.names
    wanted = list(columns) or _canonical(there, assets)
    for name in wanted:
        if name not in there and name not in ASSETS:
            known = ", ".join(f"`{each}`" for each in there)
            raise Invalid(
                f"the rows have no column `{name}`; there are {known}",
                reason=errors.ERROR_REASON_UNKNOWN_COLUMN,
                violations=[("columns", f"`{name}` is not there")],
            )
    read = [name for name in dict.fromkeys([*wanted, *([SPLIT] if split else [])]) if name in there]
    for batch in _some(file.iter_batches(_rows_in(file.metadata, read, size), columns=read, use_threads=False), file):
        found = batch.filter(pc.equal(batch.column(SPLIT), split)) if split else batch
        yield pa.record_batch({name: _column(found, name) for name in wanted}) if wanted else found


def _some(found: Iterator[pa.RecordBatch], file: pyarrow.parquet.ParquetFile) -> Iterator[pa.RecordBatch]:
    """The same batches; an empty one where there is none, as in a part of which all rows were forgotten."""
    is_empty = True
    for batch in found:
        is_empty = False
        yield batch
    if is_empty:
        schema = file.schema_arrow
        yield pa.record_batch([pa.array([], each.type) for each in schema], schema=schema)


def _rows_in(about: pyarrow.parquet.FileMetaData, columns: Sequence[str], size: int) -> int:
    """How many rows have so many bytes in these columns; more where values repeat."""
    groups = [about.row_group(index) for index in range(about.num_row_groups)]
    chunks = [group.column(index) for group in groups for index in range(about.num_columns)]
    below = tuple(f"{name}." for name in columns)
    read = [each for each in chunks if each.path_in_schema in columns or each.path_in_schema.startswith(below)]
    held: int = sum(each.total_uncompressed_size for each in read)
    return max(1, int(about.num_rows) * size // max(1, held))


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column, or nulls; a stream of batches without dictionaries needs no messages between them."""
    if name not in batch.schema.names:
        return pa.nulls(len(batch), ASSETS[name])
    return batch.column(name).cast(pa.string()) if name == SPLIT else batch.column(name)


def _canonical(there: Sequence[str], assets: Sequence[str]) -> list[str]:
    """The columns of a task type, those for assets before what is said about rows."""
    named = [name for name in ASSETS if name in assets or name in there]
    content = [name for name in there if name not in (*ABOUT, *named, SPLIT, KEY)]
    return [*content, *named, *(name for name in there if name in ABOUT)]


def lines(batch: pa.RecordBatch) -> list[bytes]:
    """JSON lines in pieces of whole lines, about 1 MiB together unless one row alone is longer."""
    filled = [name for name in batch.schema.names if batch.column(name).null_count < len(batch)]
    sink = io.BytesIO()
    pl.DataFrame(pl.from_arrow(batch.select(filled))).write_ndjson(sink)
    content, start, pieces = sink.getvalue(), 0, []
    for name in (*ABOUT, *ASSETS):  # within a text a quote has a backslash before it, so this is never content
        content = content.replace(b',"%s":null' % name.encode(), b"")
    while start < len(content):
        end = content.rfind(b"\n", start, start + PIECE_BYTES) + 1 or content.index(b"\n", start) + 1
        pieces.append(content[start:end])
        start = end
    return pieces
