"""Arrow arrays and masks of rows; what a column means is not known here."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Counts = np.ndarray[Any, np.dtype[np.int64]]


def column(raw: pa.Table, name: str) -> pa.Array | None:
    """A column as one array; None when there is none of that name."""
    if name not in raw.column_names:
        return None
    chunked = raw.column(name)
    return chunked.chunk(0) if chunked.num_chunks else pa.array([], chunked.type)


def strings(raw: pa.Table, name: str) -> pa.Array | None:
    """A column of text; None when there is none of that name, or it holds something else."""
    found = column(raw, name)
    return found if found is not None and found.type == pa.string() else None


def present(values: pa.Array) -> Mask:
    """Where there is a value."""
    return np.array(values.is_valid(), np.bool_)


def equal(text: pa.Array, value: str | pa.Array) -> Mask:
    """Where the text is this one; a null is not."""
    return np.array(pc.equal(text, value).fill_null(False), np.bool_)


def filled(text: pa.Array) -> Mask:
    """Where there is more than space; a null has nothing."""
    blank = pc.or_(pc.equal(text, ""), pc.utf8_is_space(text))
    return ~np.array(blank.fill_null(True), np.bool_)


def sizes(text: pa.Array) -> Counts:
    """The bytes of each text; a null has none."""
    return np.asarray(pc.binary_length(text).fill_null(0), np.int64)


def counts(lists: pa.Array) -> Counts:
    """How many elements each list has; a null has none."""
    return np.asarray(pc.list_value_length(lists).fill_null(0), np.int64)


def rows_of(lists: pa.Array) -> Counts:
    """For each element of all lists, one after the other, the row that it is in."""
    return np.repeat(np.arange(len(lists)), counts(lists))


def any_of(lists: pa.Array, elements: Mask) -> Mask:
    """Whether one of the elements of a list is marked; `elements` are those of all lists, one after the other."""
    return np.bincount(rows_of(lists)[elements], minlength=len(lists)) > 0


def lists_of(many: Counts, values: pa.Array, null: Mask) -> pa.Array:
    """Lists of so many values each, null where marked."""
    offsets = np.concatenate([[0], np.cumsum(many)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(null))


def null_where(values: pa.Array, marked: Mask) -> pa.Array:
    """The values but for those that are marked."""
    return pc.if_else(pa.array(marked), pa.scalar(None, values.type), values) if marked.any() else values
