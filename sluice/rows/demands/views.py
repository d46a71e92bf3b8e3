"""Canonical rows as plain columns of texts, numbers and truths, which expressions can speak of."""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum

import polars as pl
import pyarrow as pa

from sluice.rows.columns import CANONICAL
from sluice.rows.columns.turns import MESSAGES


class Kind(Enum):
    """What a value is."""

    TEXT = "text"
    NUMBER = "a number"
    TRUTH = "true or false"


View = tuple[Kind, Callable[[pl.Expr], pl.Expr]]
#: Of the conversation of a row in `messages`: what was said before the last answer, that answer, and so on.
_OF_MESSAGES: dict[str, View] = {
    "prompt": (Kind.TEXT, lambda column: _said(column.list.slice(0, column.list.len() - 1))),
    "answer": (Kind.TEXT, lambda column: column.list.last().struct.field("content")),
    "system": (Kind.TEXT, lambda column: _said(_of_role(column, "system"))),
    "turns": (Kind.NUMBER, lambda column: column.list.len().cast(pl.Int64)),
}


def views(row_schema: str) -> dict[str, tuple[Kind, pl.Expr]]:
    """The columns that expressions may name, each as its kind and what it is in canonical columns.

    Lists of texts are their texts with a comma between, conversations what was said, line by line.
    """
    found: dict[str, tuple[Kind, pl.Expr]] = {}
    for field in CANONICAL[row_schema]:
        column = pl.col(field.name)
        if field.type == MESSAGES:
            found[field.name] = Kind.TEXT, _said(column)
        elif pa.types.is_list(field.type) and field.type.value_type == pa.string():
            found[field.name] = Kind.TEXT, column.list.join(", ")
        elif field.type == pa.bool_():
            found[field.name] = Kind.TRUTH, column
        elif field.type == pa.string():
            found[field.name] = Kind.TEXT, column
        if field.name == "messages":
            found |= {name: (kind, of(column)) for name, (kind, of) in _OF_MESSAGES.items()}
    return found


def table(rows: pa.Table, columns: Collection[str]) -> pl.DataFrame:
    """These canonical columns of rows."""
    return pl.DataFrame(pl.from_arrow(rows.select(list(columns))))


def _said(messages: pl.Expr) -> pl.Expr:
    return messages.list.eval(pl.element().struct.field("content")).list.join("\n")


def _of_role(messages: pl.Expr, role: str) -> pl.Expr:
    return messages.list.eval(pl.element().filter(pl.element().struct.field("role") == role))
