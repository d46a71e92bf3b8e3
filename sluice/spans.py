"""Named spans of a text and the tags of its tokens that stand for them; knows no model and no file.

Places are counted in characters (Unicode code points) from 0, the end not among them. Tags are those of CoNLL-2003:
`O`, or `B-` and `I-` before the name (Ramshaw and Marcus 1995); read are also `S-`, `U-` (one token alone), `E-`, `L-`
(the last one), and bare names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

OUTSIDE = "O"
_BEGIN, _CONTINUE = frozenset("BSU"), frozenset("IELM")


class Span(NamedTuple):
    """From `start` up to `end`; `score` is how sure a model is, 1 where somebody has said so."""

    start: int
    end: int
    label: str
    score: float = 1.0

    @property
    def key(self) -> str:
        """Place and name in one, such as `0:4:PER`."""
        return f"{self.start}:{self.end}:{self.label}"


def tags_of(names: Iterable[str]) -> list[str]:
    """Every tag that tokens may have where spans have these names."""
    return [OUTSIDE, *(f"{mark}-{name}" for name in names for mark in "BI")]


def parted(tag: str) -> tuple[str, str]:
    """What a tag says of its place (`B`, `I`, or `O` outside of all), and its name."""
    if tag == OUTSIDE or not tag:
        return OUTSIDE, ""
    mark, dash, name = tag.partition("-")
    if dash and name and mark in _BEGIN | _CONTINUE:
        return ("B" if mark in _BEGIN else "I"), name
    return "I", tag


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The place without the white space at its ends; empty where there is nothing else."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def spans_of(
    text: str, offsets: Sequence[tuple[int, int]], tags: Sequence[str], scores: Sequence[float] = ()
) -> list[Span]:
    """The spans that tags of tokens stand for, in their order; ``offsets`` (tokens, 2) are places, empty for tokens
    that are not of the text. A name that begins with `I-` begins all the same, as in conlleval; the score of a span is
    the mean of its tokens'.
    """
    found: list[tuple[int, int, str, list[float]]] = []
    going = ""
    for place, tag in enumerate(tags):
        start, end = trimmed(text, *offsets[place])
        if start == end:
            continue
        mark, name = parted(tag)
        score = scores[place] if scores else 1.0
        if name and mark == "I" and name == going:
            first, _, _, sure = found[-1]
            found[-1] = (first, end, name, [*sure, score])
        elif name:
            found.append((start, end, name, [score]))
        going = name
    return [Span(start, end, name, sum(sure) / len(sure)) for start, end, name, sure in found]


def tagged(offsets: Sequence[tuple[int, int]], spans: Iterable[Span]) -> list[str]:
    """The tag of each token: of the span that it is in, if only in part; what is at no place is outside."""
    tags = [OUTSIDE] * len(offsets)
    for span in spans:
        mark = "B"
        for place, (start, end) in enumerate(offsets):
            if start < end and start < span.end and end > span.start and tags[place] == OUTSIDE:
                tags[place] = f"{mark}-{span.label}"
                mark = "I"
    return tags
