"""A frame: some rows of a file, seen as columns and one by one; which format they come from is not known here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from sluice.rows.violations import Violation

Numbers = np.ndarray[Any, np.dtype[np.int64]]
#: About so many bytes of rows are looked at together.
FRAME_BYTES = 4 << 20


@dataclass(frozen=True)
class Frame:
    """Rows that follow one another in a file.

    `numbers` are the rows' own, from 1 (in JSONL the lines), shape (rows,). `columns` are the rows as a table, or
    None where they do not fit into one. `row(i)` is the JSON of the i-th row. `refused` are rows, or a whole file,
    that could not even be cut out, each with what can be shown of it; they are not among the numbers. `fixed` are the
    kinds of what was repaired before rows were cut out. `sheets_unread` are those of its workbook that are passed over.
    """

    numbers: Numbers
    columns: pa.Table | None
    row: Callable[[int], bytes]
    refused: list[tuple[Violation, bytes]] = field(default_factory=list)
    fixed: tuple[str, ...] = ()
    sheets_unread: int = 0

    def __len__(self) -> int:
        return len(self.numbers)


#: Makes a frame; whoever reads a file hands these out one after the other, and they may be called side by side.
Cut = Callable[[], Frame]


def refusal(*refused: tuple[Violation, bytes]) -> Cut:
    """A frame without rows, which says why there are none."""
    return lambda: Frame(np.empty(0, np.int64), None, lambda _: b"", list(refused))


def wrong_file(kind: str, expected: str, found: str, repair: str) -> Cut:
    """What is wrong with a file as a whole."""
    return refusal((Violation(0, "", kind, expected, found, repair), b""))


def of_table(table: pa.Table, first: int) -> Frame:
    """The rows of a table of which the first has the number `first`; a null is as if the field were absent.

    Bytes are text where they are UTF-8, as other writers of Parquet have it, and else a column and no field of a row.
    """
    if len(set(table.column_names)) < len(table.column_names):
        return wrong_file(
            "doubled-column", "each column once", "two of one name", "give every column a name of its own"
        )()
    try:
        text = _as_text(table)
        plain = text.cast(pa.schema([each.with_type(_plain(each.type)) for each in text.schema]))
        plain.validate(full=True)
    except pa.ArrowInvalid:
        repair = "write text as UTF-8"
        return wrong_file("wrong-encoding", "text in UTF-8", f"other bytes after row {first - 1}", repair)()

    numbers = np.arange(first, first + len(table))
    if not plain.column_names:
        return Frame(numbers, None, lambda _: b"{}")
    return Frame(numbers, plain, json_of(plain))


def json_of(table: pa.Table) -> Callable[[int], bytes]:
    """What gives the JSON of the i-th row, without columns of bytes."""
    table = table.select([each.name for each in table.schema if not _is_bytes(each.type)])
    if not table.column_names:
        return lambda _: b"{}"

    def row(index: int) -> bytes:
        values = table.slice(index, 1).to_pylist()[0]
        return msgspec.json.encode({name: value for name, value in values.items() if value is not None}, enc_hook=str)

    return row


def _as_text(table: pa.Table) -> pa.Table:
    """The table with text in place of bytes, where all of a column are that."""
    for name in table.column_names:
        if _is_bytes(table.schema.field(name).type):
            try:
                text = table.column(name).cast(pa.string())
            except pa.ArrowInvalid:
                continue
            else:
                table = table.set_column(table.schema.get_field_index(name), name, text)
    return table


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type that a parser of JSON would have given: one kind of text, one kind of list."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([each.with_type(_plain(each.type)) for each in kind])
    return kind
