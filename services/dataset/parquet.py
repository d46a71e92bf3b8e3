"""A stored part as tables; imported when rows are first read, since Arrow weighs more than the service."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from kit.rpc.errors import Invalid
from services.dataset.reading import PIECE_BYTES
from sluice.errors import v1 as errors
from sluice.rows.columns import ASSETS
from sluice.rows.parts import ABOUT, KEY, SPLIT


def groups(content: bytes, columns: Sequence[str], split: str, assets: Sequence[str] = ()) -> Iterator[pa.Table]:
    """The rows of a split (all when empty), one row group at a time, of these columns (when empty, the canonical).

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
    absent = [name for name in wanted if name not in there]
    read = [name for name in dict.fromkeys([*wanted, *([SPLIT] if split else [])]) if name in there]
    for index in range(file.num_row_groups):
        table = file.read_row_group(index, read)
        if split:
            table = table.filter(pc.equal(table.column(SPLIT), split))
        for name in absent:
            table = table.append_column(name, pa.nulls(len(table), ASSETS[name]))
        yield _without_dictionaries(table.select(wanted))


def _canonical(there: Sequence[str], assets: Sequence[str]) -> list[str]:
    """The columns of a task type, those for assets before what is said about rows."""
    named = [name for name in ASSETS if name in assets or name in there]
    content = [name for name in there if name not in (*ABOUT, *named, SPLIT, KEY)]
    return [*content, *named, *(name for name in there if name in ABOUT)]


def lines(table: pa.Table) -> list[bytes]:
    """JSON lines in pieces of whole lines, about 1 MiB together unless one row alone is longer."""
    filled = [name for name in table.column_names if table.column(name).null_count < len(table)]
    sink = io.BytesIO()
    pl.DataFrame(pl.from_arrow(table.select(filled))).write_ndjson(sink)
    content, start, pieces = sink.getvalue(), 0, []
    for name in (*ABOUT, *ASSETS):  # within a text a quote has a backslash before it, so this is never content
        content = content.replace(b',"%s":null' % name.encode(), b"")
    while start < len(content):
        end = content.rfind(b"\n", start, start + PIECE_BYTES) + 1 or content.index(b"\n", start) + 1
        pieces.append(content[start:end])
        start = end
    return pieces


def _without_dictionaries(table: pa.Table) -> pa.Table:
    """A stream of batches without dictionaries needs no messages between them."""
    fields = [each.with_type(pa.string()) if each.name == SPLIT else each for each in table.schema]
    return table.cast(pa.schema(fields))
