"""The row schemas over Arrow columns: which rows are surely right, and what they look like in canonical form.

A row that is not vouched for here need not be wrong: `schemas` looks at it alone and says what it is. So this package
may be short of knowledge but never ahead of it: whatever it vouches for, `schemas` accepts too and gives the same
canonical row.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sluice.rows.columns import media
from sluice.rows.columns.arrays import Counts, Mask, any_of, column, counts, present, rows_of, sizes
from sluice.rows.columns.marked import ENTITIES, entities
from sluice.rows.columns.plain import labeled, matches
from sluice.rows.columns.plain import texts as pretrain
from sluice.rows.columns.replies import feedback, preference
from sluice.rows.columns.turns import HISTORY, MESSAGES, conversations
from sluice.rows.conventions import PAIRS
from sluice.rows.entities import EVERY_NAME as OF_ENTITIES
from sluice.rows.fields import LABEL, NEGATIVES, POSITIVE, QUERY, TEXT
from sluice.rows.mentions import EVERY_NAME

TEXTS = pa.list_(pa.string())
_ABOUT = [pa.field("id", pa.string()), pa.field("group", pa.string()), pa.field("tags", TEXTS)]


def _with_about(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([*(pa.field(name, kind) for name, kind in columns.items()), *_ABOUT])


_CONVERSATION = _with_about(messages=MESSAGES)
#: The canonical columns of every row schema, but for those of ASSETS.
CANONICAL: dict[str, pa.Schema] = {
    **dict.fromkeys(("sft", "vqa", "grounding", "caption", "asr"), _CONVERSATION),
    "pretrain": _with_about(text=pa.string()),
    "preference": _with_about(prompt=MESSAGES, chosen=MESSAGES, rejected=MESSAGES),
    "feedback": _with_about(prompt=MESSAGES, completion=MESSAGES, label=pa.bool_()),
    "retrieval": _with_about(query=pa.string(), positive=TEXTS, negatives=TEXTS),
    **dict.fromkeys(("classification", "image-text-classification"), _with_about(text=pa.string(), label=TEXTS)),
    "entities": _with_about(text=pa.string(), entities=ENTITIES),
}
#: Columns that name images, frames of videos, and sounds; they are there where a row names one, before the others.
ASSETS: dict[str, pa.DataType] = {"images": TEXTS, "videos": pa.list_(TEXTS), "audios": TEXTS}
#: Row schemas whose rows name none.
WITHOUT_ASSETS = ("pretrain", "entities")
#: Row schemas whose rows are about an image, or another asset.
WITH_ASSETS = ("vqa", "grounding", "caption", "image-text-classification")
#: Row schemas whose rows are about a sound; none is vouched for, since only images are read from columns.
WITH_SOUNDS = ("asr",)
#: The content of rows, without what is said about them, and where it is surely right.
_READERS: dict[str, Callable[[pa.Table], tuple[list[pa.Array], Mask]]] = {
    **dict.fromkeys(("sft", *WITH_ASSETS), lambda raw: _alone(conversations(raw))),
    "pretrain": lambda raw: _alone(pretrain(raw)),
    "preference": preference,
    "feedback": feedback,
    "retrieval": matches,
    **dict.fromkeys(("classification", "image-text-classification"), labeled),
    "entities": entities,
}
#: Columns whose type is known beforehand, so that no parser takes a date in a text for a time.
EXPECTED: dict[str, pa.DataType] = {
    "messages": MESSAGES,
    "conversations": pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())])),
    "history": HISTORY,
    "tags": TEXTS,
    **dict.fromkeys(("text", "system", *(name for pair in PAIRS for name in pair[:3] if name)), pa.string()),
}
_ANSWERS = ("chosen", "rejected", "rejected_response", "rejected_messages", "label", "kto_tag")
KNOWN = {*EXPECTED, *OF_ENTITIES, *_ANSWERS, *QUERY, *POSITIVE, *NEGATIVES, *TEXT, *LABEL, *EVERY_NAME, "id", "group"}
#: A row that surely fits into a message, however its text is escaped there: a sixth of what it may have in JSON.
MOST_BYTES = 512 << 10
#: What JSON has around a message, at most.
_AROUND_BYTES = 40


class Vouched(NamedTuple):
    """The canonical rows that are surely right, in order, and which of the rows given they are."""

    rows: pa.Table
    mask: Mask


def vouch(raw: pa.Table, row_schema: str) -> Vouched:
    """Check a table of rows in any convention, with the columns as their file names them."""
    known = [name for name in raw.column_names if name in KNOWN]
    if not known or row_schema in WITH_SOUNDS:
        return Vouched(CANONICAL[row_schema].empty_table(), np.zeros(len(raw), np.bool_))
    raw = raw.select(known).combine_chunks()
    about, sound = _about(raw)
    content, mask = _READERS[row_schema](raw)
    schema, named = CANONICAL[row_schema], []
    if row_schema not in WITHOUT_ASSETS:
        found, clear = media.images(raw)
        mask = mask & clear
        if row_schema in WITH_ASSETS:
            mask = mask & (counts(found) > 0 if found is not None else False)
        if found is not None:
            content[0], fitting = media.marked(content[0], found)
            mask, named, schema = mask & fitting, [found], with_assets(schema, ["images"])
    columns = [*content, *named, *about]
    mask = mask & sound & (sum(bytes_of(each) for each in columns) <= MOST_BYTES)
    rows = pa.table(columns, schema=schema)
    return Vouched(rows if mask.all() else rows.filter(pa.array(mask)), mask)


def with_assets(schema: pa.Schema, kinds: Iterable[str] = tuple(ASSETS)) -> pa.Schema:
    """The schema with the columns for assets of these kinds in their place: behind the content, before what is said."""
    place = len(schema) - len(_ABOUT)
    fields = list(schema)
    return pa.schema([*fields[:place], *(pa.field(kind, ASSETS[kind]) for kind in kinds), *fields[place:]])


def _alone(found: tuple[pa.Array, Mask]) -> tuple[list[pa.Array], Mask]:
    return [found[0]], found[1]


def _about(raw: pa.Table) -> tuple[list[pa.Array], Mask]:
    """The columns `id`, `group` and `tags`, and where they are as they should be."""
    sound, columns = np.ones(len(raw), np.bool_), []
    for field in _ABOUT:
        values = column(raw, field.name)
        if values is not None and field.type == pa.string() and pa.types.is_integer(values.type):
            values = values.cast(pa.string())
        if values is None or values.type != field.type:
            sound &= True if values is None else ~present(values)
            values = pa.nulls(len(raw), field.type)
        if field.name == "tags":
            sound &= ~any_of(values, ~present(values.flatten()))
        columns.append(values)
    return columns, sound


def bytes_of(values: pa.Array) -> Counts:
    """About what each row of a column is in JSON, but for what is escaped."""
    if pa.types.is_boolean(values.type):
        return np.full(len(values), _AROUND_BYTES)
    if not pa.types.is_list(values.type):
        return sizes(values) + _AROUND_BYTES
    flat = values.flatten()
    said = "label" if values.type == ENTITIES else "content"
    text = flat.field(said) if pa.types.is_struct(flat.type) else flat
    return np.bincount(rows_of(values), sizes(text) + _AROUND_BYTES, len(values)).astype(np.int64)
