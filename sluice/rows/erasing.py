"""Rows taken out of stored parts and kept out of new ones; whose rows they are, and why they go, is not known here."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from sluice.rows.names import SPLITS
from sluice.rows.parts import SPLIT, Part, part_of
from sluice.rows.recall import Forgotten

#: The columns that rows can be forgotten by, in the order in which a row is looked at.
COLUMNS = ("id", "group", "tags")


class Counted(NamedTuple):
    """How many rows of a part match, and how many have nothing in the column, so that they never can."""

    matching: int
    blank: int


def count(file: BinaryIO, column: str, values: Collection[str]) -> Counted:
    """The rows of a part that match, and those that cannot; of the part only that column is read."""
    stored = pyarrow.parquet.ParquetFile(file)
    if column not in stored.schema_arrow.names:
        return Counted(0, stored.metadata.num_rows)
    found, blank = 0, 0
    for batch in stored.iter_batches(columns=[column]):
        told = batch.column(0)
        found += int(matching(told, values).sum())
        lists = pa.types.is_list(told.type)
        blank += int(pc.sum(pc.equal(pc.list_value_length(told), 0)).as_py() or 0) if lists else 0
        blank += told.null_count
    return Counted(found, blank)


def without(file: BinaryIO, column: str, values: Collection[str]) -> Part:
    """The part anew, without the rows that match, as if they had never been in it; of no rows at all if all do.

    The others keep their split and key, whatever today's way of giving them would be.
    """
    table = pyarrow.parquet.read_table(file)
    left = table.filter(pa.array(~matching(_whole(table, column), values))).combine_chunks()
    split = pc.index_in(_whole(left, SPLIT).cast(pa.string()), pa.array(SPLITS)).cast(pa.int8())
    words = pa.DictionaryArray.from_arrays(split, pa.array(SPLITS))
    return part_of(left.set_column(left.column_names.index(SPLIT), SPLIT, words))


def matching(column: pa.Array, values: Collection[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows have one of the values, in a column of texts or of lists of texts; shape (rows,)."""
    wanted = pa.array(sorted(values), pa.string())
    if not pa.types.is_list(column.type):
        return np.asarray(pc.is_in(column, wanted).to_numpy(zero_copy_only=False))
    return _any_of(column, pc.is_in(column.flatten(), wanted).to_numpy(zero_copy_only=False))


def recalled(rows: pa.Table, forgotten: Forgotten) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows were forgotten: by their id, their group or one of their tags; shape (rows,)."""
    found = np.zeros(len(rows), np.bool_)
    for name in COLUMNS:
        if name not in rows.column_names or rows.column(name).null_count == len(rows):
            continue
        column = _whole(rows, name)
        if pa.types.is_list(column.type):
            found |= _any_of(column, _known(column.flatten(), name, forgotten))
        else:
            found |= _known(column, name, forgotten)
    return found


def called(rows: pa.Table, forgotten: Forgotten) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows of a file were forgotten by what stands under names that other files gave a meaning; shape (rows,)."""
    found = np.zeros(len(rows), np.bool_)
    for name in set(forgotten.names) & set(rows.column_names):
        column, meaning = _whole(rows, name), forgotten.names[name]
        lists = pa.types.is_list(column.type)
        values = column.flatten() if lists else column
        if not (pa.types.is_primitive(values.type) or pa.types.is_string(values.type)):
            continue  # of anything else no id, group or tag is made
        known = _known(values.cast(pa.string()), meaning, forgotten)
        found |= _any_of(column, known) if lists else known
    return found


def digests(values: Sequence[str] | pa.Array, column: str, salt: str) -> pl.Series:
    """`sha256:<hex>` over the lines salt, column and value, each but the last ended by LF; null of null."""
    import polars_hash as hashing

    texts = pl.DataFrame({"text": pl.Series(values, dtype=pl.String)}).select(
        pl.lit(f"{salt}\n{column}\n") + pl.col("text")
    )
    return "sha256:" + texts.select(hashing.col("literal").chash.sha2_256()).to_series()


def sifted(lines: bytes, names: Collection[str], values: Collection[str]) -> tuple[bytes, int]:
    """Rows that were put aside, as JSON lines, without those that match; and how many went.

    A row that was put aside may be broken. Where none of ``names`` can be read in it, it goes if one of the values
    stands anywhere in it: of rows that nobody trains on, better one too many.
    """
    kept = [
        line for line in lines.splitlines(keepends=True) if not _speaks_of(json.loads(line)["content"], names, values)
    ]
    return b"".join(kept), len(lines.splitlines()) - len(kept)


def _speaks_of(raw: str, names: Collection[str], values: Collection[str]) -> bool:
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError):
        row = None
    said = [row[name] for name in names if row.get(name) is not None] if isinstance(row, dict) else []
    if said:
        return any(str(each) in values for one in said for each in (one if isinstance(one, list) else [one]))
    if row is not None:
        text = json.dumps(row, ensure_ascii=False)
        return any(value in text for value in values)
    lower = raw.lower()  # of what is broken nobody knows whether its letters were to be read as escapes
    return any(value in raw or json.dumps(value)[1:-1].lower() in lower for value in values)


def _known(column: pa.Array, name: str, forgotten: Forgotten) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """By the digest of each value, of which a column has few that differ."""
    encoded = column.dictionary_encode()
    hashed = digests(encoded.dictionary, name, forgotten.salt).is_in(sorted(forgotten.digests))
    known = np.append(hashed.to_numpy(), False)  # where there is no value
    return np.asarray(known[encoded.indices.fill_null(len(known) - 1).to_numpy(zero_copy_only=False)])


def _any_of(lists: pa.Array, hits: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    found = np.zeros(len(lists), np.bool_)
    found[pc.list_parent_indices(lists).to_numpy()[hits.astype(np.bool_)]] = True
    return found


def _whole(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name).combine_chunks()
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
