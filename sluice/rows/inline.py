"""Images and sounds whose bytes stand in the rows themselves, as Parquet of Hugging Face datasets has them.

A cell is an object of `bytes` and `path`, or bare bytes; in its place comes the digest of what was taken from it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sluice.rows.frames import Frame, json_of
from sluice.rows.mentions import EVERY_NAME

#: Takes bytes in and gives the names by which they are found again; None for None.
Take = Callable[[Sequence[bytes | None]], list[str | None]]


def inlined(frame: Frame, take: Take, names: Collection[str] = ()) -> Frame:
    """The frame with names in place of bytes; `names` are columns that people say are images or sounds."""
    if frame.columns is None:
        return frame
    table = frame.columns
    for place, field in enumerate(table.schema):
        if _holds_bytes(field.type) or (_is_bytes(field.type) and field.name in (*EVERY_NAME, *names)):
            column = table.column(place).combine_chunks()
            column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
            table = table.set_column(place, field.name, _named(column, take))
    return frame if table is frame.columns else replace(frame, columns=table, row=json_of(table))


def _named(column: pa.Array, take: Take) -> pa.Array:
    if pa.types.is_list(column.type):
        named = _named(column.flatten(), take)
        sizes = pc.list_value_length(column).fill_null(0)
        offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(sizes).cast(pa.int32())])
        return pa.ListArray.from_arrays(offsets, named, mask=column.is_null())
    if pa.types.is_struct(column.type):
        taken = _names(column.field("bytes"), take)
        paths = column.field("path") if column.type.get_field_index("path") >= 0 else pa.nulls(len(column), pa.string())
        named = pc.coalesce(taken, paths.cast(pa.string()))
        return pc.if_else(column.is_valid(), named, pa.scalar(None, pa.string()))
    return _names(column, take)


def _names(values: pa.Array, take: Take) -> pa.Array:
    found: list[Any] = [None] * len(values)
    for start in range(0, len(values), 64):  # not all of their bytes at once
        found[start : start + 64] = take(values.slice(start, 64).to_pylist())
    return pa.array(found, pa.string())


def _holds_bytes(kind: pa.DataType) -> bool:
    while pa.types.is_list(kind):
        kind = kind.value_type
    place = kind.get_field_index("bytes") if pa.types.is_struct(kind) else -1
    return place >= 0 and _is_bytes(kind.field(place).type)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
