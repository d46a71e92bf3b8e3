"""The text inside a table, however deep it lies in lists and structs; what becomes of it is not known here."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import pyarrow as pa

    Rows = np.ndarray[Any, np.dtype[np.int64]]
    #: Gets the path of some texts (such as ``messages[].content``), the texts, and the row of the table that each
    #: lies in, from 0. Returns as many texts, or the very same column when nothing changes.
    Visit = Callable[[str, pl.Series, Rows], pl.Series]


def rewrite(table: pl.DataFrame, columns: Collection[str], visit: Visit) -> pl.DataFrame:
    """The table with the texts inside ``columns`` as ``visit`` returns them; it is the same table if none changes."""
    import numpy as np
    import polars as pl

    changed = []
    for column in table.get_columns():
        if column.name not in columns or not _has_text(column.dtype):
            continue
        array = column.to_arrow(compat_level=pl.CompatLevel.newest())
        after = _rewrite(array, column.name, np.arange(len(column)), visit)
        if after is not array:
            changed.append(pl.Series(column.name, pl.from_arrow(after), dtype=column.dtype))
    return table.with_columns(changed) if changed else table


def _has_text(dtype: pl.DataType) -> bool:
    import polars as pl

    if isinstance(dtype, pl.List | pl.Array):
        return _has_text(dtype.inner)  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return any(_has_text(each.dtype) for each in dtype.fields)  # type: ignore[arg-type]
    return dtype == pl.String


def _rewrite(array: pa.Array, path: str, rows: Rows, visit: Visit) -> pa.Array:
    """The array after ``visit``; the very same when nothing below it changed."""
    import polars as pl
    import pyarrow as pa

    kind = array.type
    if pa.types.is_struct(kind):
        return _rewrite_struct(array, path, rows, visit)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _rewrite_list(array, path, rows, visit)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        texts = pl.Series(path, pl.from_arrow(array))
        after = visit(path, texts, rows)
        return array if after is texts else after.to_arrow(compat_level=pl.CompatLevel.newest())
    return array


def _rewrite_struct(array: pa.Array, path: str, rows: Rows, visit: Visit) -> pa.Array:
    import pyarrow as pa

    before = [array.field(place) for place in range(array.type.num_fields)]
    after = [
        _rewrite(child, f"{path}.{field.name}", rows, visit) for field, child in zip(array.type, before, strict=True)
    ]
    if all(new is old for new, old in zip(after, before, strict=True)):
        return array
    return pa.StructArray.from_arrays(after, names=[field.name for field in array.type], mask=array.is_null())


def _rewrite_list(array: pa.Array, path: str, rows: Rows, visit: Visit) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    fixed = pa.types.is_fixed_size_list(array.type)
    lengths = np.full(len(array), array.type.list_size) if fixed else np.diff(array.offsets.to_numpy())
    start = array.offset * array.type.list_size if fixed else int(array.offsets[0].as_py()) if len(array) else 0
    before = array.values.slice(start, int(lengths.sum()))
    after = _rewrite(before, f"{path}[]", np.repeat(rows, lengths), visit)
    if after is before:
        return array
    if fixed:
        return pa.FixedSizeListArray.from_arrays(after, array.type.list_size, mask=array.is_null())
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), type=array.offsets.type)
    build = pa.LargeListArray if pa.types.is_large_list(array.type) else pa.ListArray
    return build.from_arrays(offsets, after, mask=array.is_null())
