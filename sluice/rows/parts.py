"""Canonical tables as Parquet parts: the unit in which rows are stored, shared, read and forgotten."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from sluice.rows.assets import digests_in
from sluice.rows.columns import ASSETS
from sluice.rows.names import SPLITS

SPLIT, KEY = "split", "key"
#: Columns that say something about a row and are not what it says.
ABOUT = ("id", "group", "tags")
#: A part is written when it has gathered so many bytes of Arrow; a version of 5 GB has some 200 parts.
PART_BYTES = 16 << 20
#: What a reader holds at once.
ROW_GROUP_BYTES = 8 << 20
_WITHIN, _AFTER = "\x1f", "\x1e"


@dataclass(frozen=True)
class Part:
    """A Parquet file of canonical rows with `split` and `key` beside them; `split_rows` counts the rows of each.

    `assets` are the digests that the rows name, by column, each once.
    """

    content: bytes
    row_count: int
    split_rows: dict[str, int]
    assets: dict[str, list[str]] = field(default_factory=dict)


class Gathering:
    """Tables on their way into parts; a part is due when enough has come."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self._bytes = 0

    def add(self, table: pa.Table) -> Iterator[pa.Table]:
        """Take a table and yield what makes a part, if there is enough."""
        self._tables.append(table)
        self._bytes += table.nbytes
        if self._bytes >= PART_BYTES:
            yield from self.rest()

    def rest(self) -> Iterator[pa.Table]:
        """Yield what is left, if there is anything."""
        if self._tables:
            yield _in_order(pa.concat_tables(self._tables, promote_options="default"))
        self._tables, self._bytes = [], 0


def encode(rows: pa.Table) -> Part:
    """Write canonical rows as a part. Equal rows make equal bytes under one version of Arrow."""
    keys = row_keys(rows)
    split = splits_of(_group_keys(rows, keys))
    return part_of(rows.append_column(SPLIT, split).append_column(KEY, keys))


def part_of(table: pa.Table) -> Part:
    """Write rows that have their `split` and `key` already as a part, in the same way."""
    sink = io.BytesIO()
    per_row = max(1, table.nbytes // max(1, len(table)))
    pyarrow.parquet.write_table(
        table,
        sink,
        row_group_size=max(1, ROW_GROUP_BYTES // per_row),
        compression="lz4",  # written and read at 1.5 times the speed of zstd's quickest level, for 1.4 times the bytes
        use_dictionary=[SPLIT, "messages.list.element.role"],  # what repeats; a dictionary of texts only costs time
        write_statistics=False,
        write_batch_size=16_384,  # a sixth quicker than with Arrow's 1024
    )
    split = table.column(SPLIT)
    counts = {name: int(pc.sum(pc.equal(split, name)).as_py() or 0) for name in SPLITS}
    return Part(sink.getvalue(), len(table), counts, digests_in(table))


def row_keys(rows: pa.Table) -> pa.Array:
    """What each row is known by: XXH3-128 of its content alone, whatever is said about it; binary(16), shape (rows,).

    Equal content has equal keys in every file, version and release. XXH3: https://xxhash.com, specification 0.2.
    """
    named = [name for name in ASSETS if name in rows.column_names]
    texts = [_text(_column(rows, name)) for name in rows.column_names if name not in (*ABOUT, *named)]
    whole = texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, _AFTER, null_handling="replace")
    for name in named:  # a row that names nothing has the key that it always had
        column = _column(rows, name)
        longer = pc.binary_join_element_wise(whole, name, _text(column), _AFTER, null_handling="replace")
        whole = pc.if_else(column.is_valid(), longer, whole)
    return _hashed(whole)


def _column(rows: pa.Table, name: str) -> pa.Array:
    column = rows.column(name).combine_chunks()
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _in_order(rows: pa.Table) -> pa.Table:
    """The columns as the schema has them, wherever the first row with an image came."""
    about = [name for name in ABOUT if name in rows.column_names]
    named = [name for name in ASSETS if name in rows.column_names]
    content = [name for name in rows.column_names if name not in (*about, *named)]
    return rows.select([*content, *named, *about])


def _group_keys(rows: pa.Table, keys: pa.Array) -> pa.Array:
    """The keys that splits follow: that of a row's group, where it has one, else its own."""
    group = rows.column("group").combine_chunks()
    return keys if group.null_count == len(group) else pc.if_else(group.is_valid(), _hashed(group), keys)


def _hashed(text: pa.Array) -> pa.Array:
    import polars_hash as hashing

    column = hashing.col("text").nchash.xxh3_128(return_binary=True, byte_order="big")
    hashed = pl.DataFrame({"text": pl.from_arrow(text)}).select(column).to_series()
    return hashed.to_arrow().cast(pa.binary(16))


def splits_of(keys: pa.Array) -> pa.DictionaryArray:
    """`train`, `validation` or `test`, in the shares 80, 10, 10, by these keys alone.

    So no group, such as a patient, and among rows without a group no content, is ever in two splits, whatever file or
    version it comes in.
    """
    words = np.frombuffer(keys.buffers()[1], ">u8", 2 * len(keys), 16 * keys.offset)[1::2]
    places = words % 100
    indices = (places >= 80).astype(np.int8) + (places >= 90)
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int8()), pa.array(SPLITS))


def _text(column: pa.Array) -> pa.Array:
    """All the text of each value, with marks between its pieces so that pieces cannot run into one another."""
    if pa.types.is_list(column.type):
        pieces = _text(column.flatten())
        offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(column).fill_null(0).to_numpy())])
        return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pieces), _AFTER)
    if pa.types.is_struct(column.type):
        return pc.binary_join_element_wise(*map(_text, column.flatten()), _WITHIN, null_handling="replace")
    return column.cast(pa.string())
