"""Rows kept, labelled and tagged by expressions; how one is read is not known here."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
import pyarrow as pa

from kit.rpc.errors import Invalid
from sluice.rows.columns import CANONICAL
from sluice.rows.demands import Demands
from sluice.rows.demands.expressions import Value, compiled
from sluice.rows.demands.step import Looked, Step
from sluice.rows.demands.views import Kind, table, views
from sluice.rows.violations import RefusedError

_SETTABLE = ("label", "id", "group")


def check(demands: Demands, row_schema: str) -> None:
    """Raises Invalid for an expression that cannot be read, or does not give what it is for."""
    _Filter(demands, row_schema)


def filtering(demands: Demands, row_schema: str) -> Step:
    """The step that drops, labels and tags rows. Raises Invalid as `check` does."""
    return _Filter(demands, row_schema)


class _Filter:
    """The expressions of a file's rows, compiled."""

    def __init__(self, demands: Demands, row_schema: str) -> None:
        columns = views(row_schema)
        self._schema = CANONICAL[row_schema]
        self._keep = compiled(demands.keep, columns, "`keep`") if demands.keep else None
        if self._keep is not None and self._keep.kind is not Kind.TRUTH:
            raise Invalid(f"the expression of `keep` gives {self._keep.kind.value}; give one that is true or false")
        self._set = {name: self._settable(name, text, columns) for name, text in demands.set.items()}
        self._tags = {name: compiled(text, columns, f"tag `{name}`") for name, text in demands.tags.items()}
        needed = [each.made for each in (self._keep, *self._set.values(), *self._tags.values()) if each is not None]
        self._needs = {name for made in needed for name in made.meta.root_names()}

    def _settable(self, name: str, text: str, columns: Mapping[str, tuple[Kind, pl.Expr]]) -> Value:
        known = [each for each in _SETTABLE if each in self._schema.names]
        if name not in known:
            raise Invalid(f"`{name}` cannot be set; of these rows {', '.join(f'`{each}`' for each in known)} can")
        value = compiled(text, columns, f"`set {name}`")
        truth = self._schema.field(name).type == pa.bool_()
        if truth != (value.kind is Kind.TRUTH):
            wanted = "true or false" if truth else "a text or a number"
            raise Invalid(f"the expression of `set {name}` gives {value.kind.value}; give one that is {wanted}")
        return value

    def __call__(self, rows: pa.Table) -> Looked:
        given = {"keep": self._keep, **{f"set {name}": value for name, value in self._set.items()}}
        given |= {f"tag {name}": value for name, value in self._tags.items()}
        frame = table(rows, self._needs or {self._schema.names[0]})
        found = frame.select(**{name: _full(value.made, frame) for name, value in given.items() if value is not None})
        kept = None if self._keep is None else found["keep"].fill_null(False).to_numpy()
        refused: dict[int, RefusedError] = {}
        for name in self._set:
            rows = self._with(rows, name, found[f"set {name}"], refused)
        if self._tags:
            rows = self._tagged(rows, found)
        return Looked(rows, refused, kept)

    def _with(self, rows: pa.Table, name: str, values: pl.Series, refused: dict[int, RefusedError]) -> pa.Table:
        """The rows with these values; where there is none a row keeps its own, and is wrong where it has no label.

        A text without anything in it is none.
        """
        field = rows.schema.field(name)
        own = pl.Series("own", pl.from_arrow(rows.column(name)))
        if field.type != pa.bool_():
            values = _texts(values)
            values = values.str.strip_chars().replace("", None) if name == "label" else _named(values)
        if name == "label":
            bare = (values.is_null() & own.is_null()).to_numpy()
            refused |= {int(place): _unlabeled() for place in np.flatnonzero(bare)}
        new = pl.col("new")
        listed = pl.when(new.is_not_null()).then(pl.concat_list(new)) if pa.types.is_list(field.type) else new
        after = pl.DataFrame([values.alias("new"), own]).select(pl.coalesce(listed, "own")).to_series()
        return rows.set_column(rows.schema.get_field_index(name), field, _arrow(after, field.type))

    def _tagged(self, rows: pa.Table, found: pl.DataFrame) -> pa.Table:
        """The rows with `name=value` among their tags, or `name` alone where the value is a truth."""
        words = []
        found = found.select(_texts(found[f"tag {name}"]) for name in self._tags)
        for name, value in self._tags.items():
            given = pl.col(f"tag {name}")
            word = pl.when(given).then(pl.lit(name)) if value.kind is Kind.TRUTH else pl.lit(f"{name}=") + given
            words.append(word.alias(name))
        own = pl.Series("own", pl.from_arrow(rows.column("tags")))
        new = found.select(pl.concat_list(words).list.drop_nulls().alias("new"))
        both = pl.concat_list(pl.col("own").fill_null([]), "new").list.unique(maintain_order=True)
        tags = new.with_columns(own).select(pl.when(both.list.len() > 0).then(both)).to_series()
        field = rows.schema.field("tags")
        return rows.set_column(rows.schema.get_field_index("tags"), field, _arrow(tags, field.type))


def _full(made: pl.Expr, frame: pl.DataFrame) -> pl.Expr:
    """The expression with a value for each row, also where it names no column."""
    if made.meta.root_names():
        return made
    value = pl.select(made).to_series()
    return pl.repeat(value[0], frame.height, dtype=value.dtype)


def _texts(values: pl.Series) -> pl.Series:
    """Numbers as people write them, whole ones without a point; truths stay as they are."""
    if values.dtype == pl.Boolean:
        return values
    if not values.dtype.is_numeric():
        return values.cast(pl.String)
    whole = (values == values.floor()) & (values.abs() < 1 << 53)
    shown = values.to_frame("number").select(
        pl.when(pl.lit(whole)).then(pl.col("number").cast(pl.Int64, strict=False).cast(pl.String)).otherwise("number")
    )
    return shown.to_series().alias(values.name)


def _named(values: pl.Series) -> pl.Series:
    """Null for names that have nothing in them: all rows that have one would be the same."""
    return values.set(values.str.strip_chars() == "", None)


def _arrow(values: pl.Series, kind: pa.DataType) -> pa.Array:
    return values.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(kind)


def _unlabeled() -> RefusedError:
    repair = "let the expression give every row a label"
    return RefusedError("label", "missing-field", "a field `label`", "none, and the expression gives none", repair)
