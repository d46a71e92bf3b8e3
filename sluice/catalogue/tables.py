"""Tables of a copy, Parquet, Arrow and delimited, streamed by Polars as frames of a bounded number of rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from kit.rpc.errors import Invalid
from sluice.catalogue.mirror import Found

BATCH_ROWS = 2048


def parquet(path: Path, found: Found) -> Iterator[pl.DataFrame]:
    """The columns of the layout, without the images and sounds in them. Raises Invalid for one that is not there."""
    frame = pl.scan_parquet(path, glob=False)
    rows = frame.select(pl.len()).collect().item()
    span = BATCH_ROWS // 8 if found.layout.media == "embedded" else 16 * BATCH_ROWS
    for start in range(0, rows, span):  # Polars decodes row groups ahead of us, as many as there are
        yield from _streamed(frame.slice(start, span), path, found)


def arrow(path: Path, found: Found) -> Iterator[pl.DataFrame]:
    """The same of an Arrow file, or of an Arrow stream, which is read as a whole."""
    with path.open("rb") as file:
        whole = file.read(6) == b"ARROW1"
    if whole:
        yield from _streamed(pl.scan_ipc(path, glob=False), path, found)
    else:  # the stream format, which `datasets` writes in shards of some hundred MB
        yield from sliced(pl.read_ipc_stream(path))


def delimited(path: Path, found: Found) -> Iterator[pl.DataFrame]:
    """The same of comma or tab separated values, all of them text."""
    layout = found.layout
    frame = pl.scan_csv(
        path,
        glob=False,
        separator="\t" if layout.format == "tsv" else ",",
        has_header=layout.header,
        new_columns=None if layout.header else layout.columns,
        quote_char='"' if layout.quotes else None,
        skip_lines=layout.skip_lines,
        infer_schema=False,
    )
    yield from _streamed(frame, path, found)


def _streamed(frame: pl.LazyFrame, path: Path, found: Found) -> Iterator[pl.DataFrame]:
    schema = frame.collect_schema()
    there = schema.names()
    first = set(found.layout.explode[:1])
    lost = [column for column in found.layout.columns if column not in there and not found.layout.explode]
    lost += [column for column in first if column not in there]
    if lost:
        raise Invalid(
            f"`{path.relative_to(found.root)}` has no column `{lost[0]}`; it has {', '.join(there[:12])};"
            " this copy is laid out otherwise than the catalogue knows"
        )
    used = [column for column in there if column in {*found.layout.columns, *first}]
    columns = [_without_bytes(column, schema[column]) for column in used]
    yield from frame.select(columns).collect_batches(chunk_size=BATCH_ROWS)


def _without_bytes(column: str, kind: pl.DataType) -> pl.Expr:
    """A column without the images and sounds in it, of which only the names are wanted."""
    whole = pl.col(column)
    if not isinstance(kind, pl.Struct) or all(field.dtype != pl.Binary for field in kind.fields):
        return whole
    kept = [whole.struct.field(field.name) for field in kind.fields if field.dtype != pl.Binary]
    return pl.struct(kept).alias(column) if kept else pl.lit(None).alias(column)


def sliced(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The frame in parts of at most ``BATCH_ROWS`` rows."""
    yield from frame.iter_slices(BATCH_ROWS)
