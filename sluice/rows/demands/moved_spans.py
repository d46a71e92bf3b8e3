"""Spans of texts that were masked: each stays with its words; what identifies people is known by the recognizers."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from sluice.rows.deidentify import Recognizer, Span
from sluice.rows.deidentify.text import find


def moved(before: pa.Table, after: pa.Table, using: Sequence[Recognizer]) -> pa.Table:
    """The rows after masking with their entities where the masked text has them; one that is masked in part has the
    whole placeholder. Of the texts that did not change nothing is looked at.
    """
    texts, masked = (table.column("text").combine_chunks() for table in (before, after))
    changed = pc.indices_nonzero(pc.not_equal(texts, masked).fill_null(False))
    if not len(changed):
        return after
    found = find(pl.Series("text", pl.from_arrow(texts.take(changed))), using)
    spans = after.column("entities").to_pylist()
    for place, row in enumerate(changed.to_pylist()):
        spans[row] = [_moved(each, found.get(place, []), masked[row].as_py()) for each in spans[row] or ()]
        spans[row] = [each for index, each in enumerate(spans[row]) if not index or each != spans[row][index - 1]]
    field = after.schema.field("entities")
    return after.set_column(after.schema.get_field_index("entities"), field, pa.array(spans, field.type))


def _moved(entity: dict[str, object], found: Sequence[Span], masked: str) -> dict[str, object]:
    """`found` are what was replaced in the text, in order and disjoint; a placeholder ends with its only `>`."""
    start, end = int(str(entity["start"])), int(str(entity["end"]))
    shift, first, last = 0, start, end
    for span in found:
        begin = span.start + shift
        behind = masked.index(">", begin) + 1
        if span.start < start < span.end:
            first = begin
        if span.start < end < span.end:
            last = behind
        shift = behind - span.end
        if start >= span.end:
            first = start + shift
        if end >= span.end:
            last = end + shift
    return {**entity, "start": first, "end": last}
