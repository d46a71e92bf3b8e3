"""The images that rows name, as a column, with their marks in the texts; the rows' view is `sluice.rows.mentions`.

Rows that name videos or sounds, or name images in two ways, are left to that.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sluice.rows.columns.arrays import Mask, any_of, column, counts, equal, filled, lists_of, present, rows_of
from sluice.rows.mentions import AUDIOS, IMAGES, MARKS, VIDEOS

_NAMES = pa.list_(pa.string())
_MARK = MARKS["images"]


def images(raw: pa.Table) -> tuple[pa.Array | None, Mask]:
    """What each row names, null for nothing, and where that is surely right; None where no row may name any."""
    sound, given = np.ones(len(raw), np.bool_), []
    for name in (*IMAGES, *VIDEOS, *AUDIOS):
        values = column(raw, name)
        if values is None or values.null_count == len(values):
            continue
        if pa.types.is_list(values.type) and not counts(values).any():  # lists of nothing
            continue
        if name in IMAGES and (values.type == pa.string() or values.type == _NAMES):
            given.append(values)
        else:
            sound &= ~present(values)
    if len(given) != 1:
        for values in given:
            sound &= ~present(values)
        return None, sound
    named, (values,) = given[0], given
    if values.type == pa.string():
        there = present(values) & ~equal(values, "")
        named = lists_of(there.astype(np.int64), values.filter(pa.array(there)), ~there)
    sound &= ~any_of(named, ~filled(named.flatten()))
    return pc.if_else(pa.array(counts(named) > 0), named, pa.scalar(None, _NAMES)), sound


def marked(asked: pa.Array, named: pa.Array) -> tuple[pa.Array, Mask]:
    """Texts, or lists of messages, with a mark for each image of the row; and where there are neither more nor fewer.

    Rows that have images and no mark get as many before the text, of messages before the first of the user.
    """
    many = counts(named)
    if pa.types.is_string(asked.type):
        there = np.asarray(pc.count_substring(asked, _MARK).fill_null(0), np.int64)
        wanted = np.where(there == 0, many, 0)
        return _before(asked, wanted), (many == 0) | (there == 0) | (there == many)
    flat, rows = asked.flatten(), rows_of(asked)
    role, content = flat.flatten()
    each = np.asarray(pc.count_substring(content, _MARK).fill_null(0), np.int64)
    there = np.bincount(rows, each, len(asked)).astype(np.int64)
    users = np.flatnonzero(equal(role, "user"))
    asking, first = np.unique(rows[users], return_index=True)
    wanted = np.zeros(len(flat), np.int64)
    wanted[users[first]] = np.where(there == 0, many, 0)[asking]
    said = pa.StructArray.from_arrays([role, _before(content, wanted)], fields=list(flat.type))
    return lists_of(counts(asked), said, ~present(asked)), (many == 0) | (there == 0) | (there == many)


def _before(text: pa.Array, marks: np.ndarray) -> pa.Array:
    """The texts, each with so many marks before it."""
    if not marks.any():
        return text
    before = pc.binary_repeat(pa.repeat(_MARK, len(text)), pa.array(marks))
    return pc.binary_join_element_wise(before, text, "")
