"""Texts and lists of texts that the parts of a mapping make of a row, as Polars expressions."""

from __future__ import annotations

from collections.abc import Mapping as Map

import polars as pl

from sluice.catalogue import template
from sluice.catalogue.entry import Value, Values
from sluice.catalogue.template import TemplateError

Schema = Map[str, pl.DataType]


def value(given: Value, schema: Schema) -> pl.Expr:
    """One text; null where it cannot be worked out."""
    if isinstance(given, str):
        return template.text(given, schema)
    if isinstance(given.of, dict):
        which = template.text(given.by, schema)
        cases = [pl.when(which == case).then(template.text(of, schema, given.join)) for case, of in given.of.items()]
        made = pl.coalesce(cases)
    else:
        made = template.text(given.of, schema, given.join)
    if given.cut:
        made = made.str.replace_all(given.cut, "")
    if given.find:
        made = made.str.extract(given.find, 1)
    if given.cut or given.find:
        made = made.str.strip_chars()
        made = pl.when(made != "").then(made)
    return renamed(made, given.names) if given.names else made


def values(given: Values, schema: Schema) -> pl.Expr:
    """A list of texts without nulls; null where a path leads to nothing."""
    if not isinstance(given, str):
        return pl.concat_list([value(each, schema) for each in given]).list.drop_nulls()
    expression, kind = template.reach(template.path(given), schema)
    if isinstance(kind, pl.Array):
        expression, kind = expression.arr.to_list(), pl.List(kind.inner)
    if isinstance(kind, pl.Null):
        return pl.lit(None, dtype=pl.List(pl.String))
    if isinstance(kind, pl.String):
        lists = pl.when(expression.str.starts_with("[")).then(expression)
        expression, kind = lists.str.json_decode(pl.List(pl.String)), pl.List(pl.String)
    if not isinstance(kind, pl.List) or isinstance(kind.inner, pl.Struct | pl.List | pl.Binary):
        raise TemplateError(f"`{given}` is a {kind}, not a list of texts")
    return expression.cast(pl.List(pl.String)).list.drop_nulls()


def renamed(column: pl.Expr, names: list[str] | Map[str, str]) -> pl.Expr:
    known = {str(place): name for place, name in enumerate(names)} if isinstance(names, list) else dict(names)
    plain = column.str.strip_suffix(".0")
    return plain.replace_strict(known, default=None, return_dtype=pl.String)


def named(column: pl.Expr, names: list[str] | Map[str, str]) -> pl.Expr:
    return column.list.eval(renamed(pl.element(), names)) if names else column
