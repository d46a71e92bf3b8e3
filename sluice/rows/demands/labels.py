"""Rows that come without a label and are to get one: they have another to pass their schema, and none right after."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from sluice.rows.answers import VERDICTS
from sluice.rows.fields import LABEL

_NAMES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("classification", "image-text-classification"), LABEL),
    "feedback": VERDICTS,
}
_UNTIL_THEN: dict[str, str | bool] = {
    **dict.fromkeys(("classification", "image-text-classification"), "none"),
    "feedback": True,
}


def labelable_row(raw: bytes, row_schema: str) -> bytes:
    """The JSON of a row, with a label where it has none; bytes that are no object stay as they are."""
    try:
        row = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return raw
    if not isinstance(row, dict) or any(row.get(name) is not None for name in _NAMES[row_schema]):
        return raw
    return msgspec.json.encode({**row, "label": _UNTIL_THEN[row_schema]})


def labelable_columns(table: pa.Table, row_schema: str) -> pa.Table:
    """The same for columns: a column of labels where there is none at all."""
    if any(name in table.column_names for name in _NAMES[row_schema]):
        return table
    return table.append_column("label", pa.repeat(_UNTIL_THEN[row_schema], len(table)))


def unlabeled(rows: pa.Table, bare: Sequence[bool]) -> pa.Table:
    """Canonical rows with null for the label of those that came without one: ``bare`` says which, shape (rows,)."""
    place = rows.schema.get_field_index("label")
    field = rows.schema.field(place)
    labels = pc.if_else(pa.array(bare, pa.bool_()), pa.scalar(None, field.type), rows.column(place))
    return rows.set_column(place, field, labels)
