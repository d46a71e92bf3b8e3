"""Texts with named spans as columns; the rows' view of them is `sluice.rows.entities`."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sluice.rows.columns.arrays import Counts, Mask, any_of, column, counts, equal, filled, lists_of, present, rows_of
from sluice.rows.entities import SPANS, TEXT, TOKENS

ENTITY = pa.struct([("start", pa.int64()), ("end", pa.int64()), ("label", pa.string())])
ENTITIES = pa.list_(ENTITY)
#: What `str.isspace` calls a space.
_SPACES = np.array([code for code in range(0x3001) if chr(code).isspace()], np.uint32)


def entities(raw: pa.Table) -> tuple[list[pa.Array], Mask]:
    """`text` and `entities`, each under the one name that the table has for it, where spans are in order and apart."""
    text, spans = _only(raw, TEXT), _only(raw, SPANS)
    if text is None or spans is None or _only(raw, (TOKENS,)) is not None or text.type != pa.string():
        return _nothing(raw)
    if not pa.types.is_list(spans.type) or not pa.types.is_struct(spans.type.value_type):
        return _nothing(raw)
    flat = spans.flatten()
    found = dict(zip((field.name for field in flat.type), flat.flatten(), strict=True))
    if any(found.get(field.name, pa.nulls(0)).type != field.type for field in ENTITY) or len(found) != len(ENTITY):
        return _nothing(raw)
    sound = filled(text) & present(spans)
    sound &= ~any_of(spans, ~present(flat) | ~_well_placed(text, spans, found) | ~_named(found["label"]))
    ordered = pa.StructArray.from_arrays([found[field.name] for field in ENTITY], fields=list(ENTITY))
    return [text, lists_of(counts(spans), ordered, ~present(spans))], sound


def _well_placed(text: pa.Array, spans: pa.Array, found: dict[str, pa.Array]) -> Mask:
    """Of all spans, one after the other: whether each is within its text, behind the one before, without spaces at its
    ends.
    """
    starts, ends = (found[name].fill_null(-1).to_numpy(zero_copy_only=False) for name in ("start", "end"))
    rows, lengths = rows_of(spans), np.asarray(pc.utf8_length(text).fill_null(0), np.int64)
    within = (starts >= 0) & (starts < ends) & (ends <= lengths[rows])
    within[1:] &= (rows[1:] != rows[:-1]) | (starts[1:] >= ends[:-1])
    spaced = _space_at(text, lengths, rows, starts, within) | _space_at(text, lengths, rows, ends - 1, within)
    return np.asarray(within & ~spaced, np.bool_)


def _space_at(text: pa.Array, lengths: Counts, rows: Counts, places: Counts, within: Mask) -> Mask:
    """Whether a space is at a place of a row's text; only of those that are within."""
    letters = np.frombuffer("".join(text.drop_null().to_pylist()).encode("utf-32-le"), np.uint32)
    begins = np.concatenate([[0], np.cumsum(lengths)[:-1]]) if len(lengths) else lengths
    found = np.zeros(len(rows), np.bool_)
    found[within] = np.isin(letters[(begins[rows] + places)[within]], _SPACES)
    return found


def _named(label: pa.Array) -> Mask:
    return filled(label) & equal(pc.utf8_trim_whitespace(label), label)


def _only(raw: pa.Table, names: tuple[str, ...]) -> pa.Array | None:
    """The one column of these names that has values; nothing for several, of which rows say which it is."""
    there = [values for name in names if (values := column(raw, name)) is not None]
    there = [values for values in there if values.null_count < len(values)]
    return there[0] if len(there) == 1 else None


def _nothing(raw: pa.Table) -> tuple[list[pa.Array], Mask]:
    return [pa.nulls(len(raw), pa.string()), pa.nulls(len(raw), ENTITIES)], np.zeros(len(raw), np.bool_)
