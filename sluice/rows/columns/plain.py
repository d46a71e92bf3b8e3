"""Texts, queries with what fits them, and texts with labels, as columns; the rows' view is `sluice.rows.fields`."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sluice.rows.columns.arrays import Mask, any_of, column, counts, equal, filled, lists_of, present, strings
from sluice.rows.fields import LABEL, NEGATIVES, POSITIVE, QUERY, TEXT

_TEXTS = pa.list_(pa.string())


def texts(raw: pa.Table) -> tuple[pa.Array, Mask]:
    """`text` where there is some."""
    text = strings(raw, "text")
    return (pa.nulls(len(raw), pa.string()), _none(raw)) if text is None else (text, filled(text))


def matches(raw: pa.Table) -> tuple[list[pa.Array], Mask]:
    """`query`, `positive` and `negatives`, each under the one name that the table has for it."""
    query, positive, negatives = _named(raw, QUERY), _named(raw, POSITIVE), _named(raw, NEGATIVES)
    if len(query) != 1 or query[0].type != pa.string() or len(positive) != 1 or len(negatives) > 1:
        return [pa.nulls(len(raw), pa.string()), *[pa.nulls(len(raw), _TEXTS)] * 2], _none(raw)
    fits, fits_well = _texts(positive[0])
    others, others_well = _texts(negatives[0] if negatives else pa.nulls(len(raw), pa.string()))
    others = pc.if_else(others.is_valid(), others, pa.scalar([], _TEXTS))
    return [query[0], fits, others], filled(query[0]) & fits_well & (counts(fits) > 0) & others_well


def labeled(raw: pa.Table) -> tuple[list[pa.Array], Mask]:
    """`text` and `label`, each under the one name that the table has for it."""
    text, label = _named(raw, TEXT), _named(raw, LABEL)
    labels = label[0].cast(pa.string()) if label and pa.types.is_integer(label[0].type) else (label or [None])[0]
    if len(text) != 1 or text[0].type != pa.string() or len(label) != 1 or labels.type != pa.string():
        return [pa.nulls(len(raw), pa.string()), pa.nulls(len(raw), _TEXTS)], _none(raw)
    listed, _ = _texts(labels)
    return [text[0], listed], filled(text[0]) & filled(labels) & equal(pc.utf8_trim_whitespace(labels), labels)


def _named(raw: pa.Table, names: Sequence[str]) -> list[pa.Array]:
    """The columns of these names that have values."""
    found = [values for name in names if (values := column(raw, name)) is not None]
    return [values for values in found if values.null_count < len(values)]


def _texts(values: pa.Array) -> tuple[pa.Array, Mask]:
    """A text as a list of one, or a list of texts; and where there is something in each."""
    if values.type == pa.string():
        there = present(values)
        alone = values if there.all() else values.drop_null()
        return lists_of(there.astype(np.int64), alone, ~there), ~there | filled(values)
    if values.type != _TEXTS:
        return pa.nulls(len(values), _TEXTS), ~present(values)
    return values, ~any_of(values, ~filled(values.flatten()))


def _none(raw: pa.Table) -> Mask:
    return np.zeros(len(raw), np.bool_)
