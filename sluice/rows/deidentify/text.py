"""Columns of text: where they identify people, and what they look like with that masked.

It knows neither tables nor policies. What was found is never returned, logged or put into an error: a finding is a
kind and a place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sluice.rows.deidentify.recognizers import Recognizer, Span

if TYPE_CHECKING:
    import polars as pl

_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_SPACES = dict.fromkeys([0xA0, *range(0x2000, 0x200E), 0x2060, 0x3000, 0xFEFF], 0x20)
_HYPHENS = dict.fromkeys([*range(0x2010, 0x2016), 0x2212], 0x2D)
_FOLDED = _WIDE | _SPACES | _HYPHENS
_WIDE_WORDS = "[０-９Ａ-Ｚａ-ｚ]"
#: Says where a word may be broken, and is not seen unless it is.
_SOFT_HYPHEN = "\u00ad"
_TO_NARROW = f"{_WIDE_WORDS}|{_SOFT_HYPHEN}"
_FOLDABLE = re.compile("[\u00a0\u2000-\u2015\u2060\u2212\u3000\ufeff\uff01-\uff5e]")


def fold(text: str) -> str:
    """``text`` with full-width letters, digits and signs, and every odd space and hyphen, as ASCII; of equal length."""
    return text.translate(_FOLDED) if _FOLDABLE.search(text) else text


def find(texts: pl.Series, recognizers: Sequence[Recognizer]) -> dict[int, list[Span]]:
    """The findings of each text that has any, by its place in ``texts`` (of strings, nulls allowed).

    The spans of a text are in order and disjoint, in characters. Hints are searched in whole columns; only texts that
    match one are looked at one by one.
    """
    searches = [
        (recognizer, number, hint) for recognizer in recognizers for number, hint in enumerate(recognizer.hints())
    ]
    if not searches:
        return {}
    anything = "|".join([_TO_NARROW, *(f"(?:{hint})" for _, _, hint in searches)])
    places = texts.str.contains(anything).arg_true()
    hinted, order = _narrowed(texts.gather(places)), places.to_list()
    folded: dict[int, str] = {}
    found: dict[int, list[Span]] = {}
    for recognizer, number, hint in searches:
        hits = hinted.str.contains(hint).arg_true()
        for hit, text in zip(hits.to_list(), hinted.gather(hits).to_list(), strict=True):
            if hit not in folded:
                folded[hit] = fold(text)
            if spans := recognizer.find(folded[hit], number):
                found.setdefault(hit, []).extend(spans)
    return {order[hit]: _placed(_disjoint(spans), texts[order[hit]]) for hit, spans in sorted(found.items())}


def _narrowed(texts: pl.Series) -> pl.Series:
    """The texts, folded where a letter or a digit is full-width, so that hints know ASCII ones only.

    Soft hyphens are left out, as they may stand between any two digits; `_placed` counts them again.
    """
    places = texts.str.contains(_TO_NARROW).arg_true()
    if not len(places):
        return texts
    return texts.scatter(places, [fold(text).replace(_SOFT_HYPHEN, "") for text in texts.gather(places).to_list()])


def _placed(spans: list[Span], text: str) -> list[Span]:
    """Spans of a text without its soft hyphens as those of the text."""
    if _SOFT_HYPHEN not in text:
        return spans
    places = [place for place, letter in enumerate(text) if letter != _SOFT_HYPHEN]
    return [Span(span.kind, places[span.start], places[span.end - 1] + 1) for span in spans]


def _disjoint(spans: list[Span]) -> list[Span]:
    """Overlapping spans become one, which has the kind of the longest, or else of the first that was found."""
    joined: list[Span] = []
    longest = 0
    for _, span in sorted(enumerate(spans), key=lambda each: (each[1].start, each[0])):
        length = span.end - span.start
        if not joined or span.start >= joined[-1].end:
            joined.append(span)
            longest = length
            continue
        last = joined[-1]
        kind = span.kind if length > longest else last.kind
        joined[-1] = Span(kind, last.start, max(last.end, span.end))
        longest = max(longest, length)
    return joined


class Placeholders:
    """The placeholders of one row: equal values get equal ones, the second value of a kind ``<KIND_2>``, and so on."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[str, int]] = {}

    def mask(self, text: str, spans: Sequence[Span]) -> str:
        """``text`` with each span replaced; ``spans`` are in order and disjoint."""
        pieces, end = [], 0
        for span in spans:
            pieces += [text[end : span.start], self._placeholder(span.kind, text[span.start : span.end])]
            end = span.end
        return "".join([*pieces, text[end:]])

    def _placeholder(self, kind: str, value: str) -> str:
        known = self._numbers.setdefault(kind, {})
        number = known.setdefault(re.sub(r"\W", "", fold(value)).upper(), len(known) + 1)
        return f"<{kind}>" if number == 1 else f"<{kind}_{number}>"
