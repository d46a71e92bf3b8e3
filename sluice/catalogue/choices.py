"""Multiple-choice questions as messages: the lettered options, and the letter of the right one."""

from __future__ import annotations

import polars as pl

from sluice.catalogue.conversations import listed
from sluice.catalogue.entry import Choice
from sluice.catalogue.values import renamed, value, values

LETTERS = "ABCDEFGHIJKLMNOP"
#: Columns of our own while a choice is worked out.
QUESTION, OPTIONS, ANSWER = "sluice.question", "sluice.options", "sluice.answer"


def staged(frame: pl.DataFrame, given: Choice) -> pl.DataFrame:
    """The frame with question and options of a choice worked out once, as they are needed for every letter."""
    schema = frame.schema
    frame = frame.with_columns(
        value(given.question, schema).alias(QUESTION), values(given.options, schema).alias(OPTIONS)
    )
    if given.kind != "first":
        return frame.with_columns(value(given.answer, schema).alias(ANSWER))
    size = pl.col(OPTIONS).list.len().cast(pl.Int64)
    shift = pl.col(QUESTION).str.len_chars().cast(pl.Int64) % pl.max_horizontal(size, 1)
    turned = pl.concat_list(pl.col(OPTIONS).list.slice(shift, size), pl.col(OPTIONS).list.slice(0, shift))
    right = (size - shift) % pl.max_horizontal(size, 1)
    return frame.with_columns(turned.alias(OPTIONS), right.cast(pl.String).alias(ANSWER))


def choice(given: Choice) -> pl.Expr:
    """Of a staged frame: the question with lettered options, and the letter of the right one, as two messages."""
    options = pl.col(OPTIONS)
    lines = [
        pl.concat_str(pl.lit(f"{name}. "), options.list.get(place, null_on_oob=True))
        for place, name in enumerate(LETTERS)
    ]
    ending = [pl.lit(given.lead)] if given.lead else []
    asked = pl.concat_str([pl.col(QUESTION), *lines, *ending], separator="\n", ignore_nulls=True)
    shown = options.list.len().is_between(2, len(LETTERS)) & pl.col(QUESTION).is_not_null()
    return listed([("user", pl.when(shown).then(asked)), ("assistant", _letter(pl.col(ANSWER), options, given.kind))])


def _letter(answer: pl.Expr, options: pl.Expr, kind: str) -> pl.Expr:
    if kind == "letter":
        upper = answer.str.strip_chars().str.to_uppercase()
        return upper.replace({str(place): name for place, name in enumerate(LETTERS, 1)})
    if kind == "text":
        same = [options.list.get(place, null_on_oob=True).str.strip_chars() == answer for place in range(len(LETTERS))]
        return pl.coalesce([pl.when(each).then(pl.lit(name)) for each, name in zip(same, LETTERS, strict=True)])
    start = 1 if kind == "one-based" else 0
    return renamed(answer, {str(place): name for place, name in enumerate(LETTERS, start)})
