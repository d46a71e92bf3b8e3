"""Spans of a text and tags of its tokens: each can be had from the other, in every scheme that is read."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.spans import Span, parted, spans_of, tagged, tags_of, trimmed

TEXT = "Ann Lee in New York"
OFFSETS = [(0, 0), (0, 3), (3, 7), (7, 10), (11, 14), (14, 19), (0, 0)]  # some begin with their space


@pytest.mark.parametrize(
    "tags",
    [
        ["O", "B-PER", "I-PER", "O", "B-LOC", "I-LOC", "O"],
        ["O", "I-PER", "I-PER", "O", "I-LOC", "I-LOC", "O"],
        ["B-X", "B-PER", "E-PER", "O", "B-LOC", "L-LOC", "I-X"],
        ["O", "PER", "PER", "O", "LOC", "LOC", "O"],
    ],
)
def test_every_scheme_gives_the_spans(tags: list[str]) -> None:
    assert spans_of(TEXT, OFFSETS, tags) == [Span(0, 7, "PER"), Span(11, 19, "LOC")]


def test_a_span_begins_where_another_ends() -> None:
    found = spans_of(TEXT, OFFSETS, ["O", "B-A", "B-A", "I-B", "S-B", "U-B", "O"], [0, 0.5, 1, 1, 1, 0.25, 0])
    assert [span.key for span in found] == ["0:3:A", "4:7:A", "8:10:B", "11:14:B", "15:19:B"]
    assert [span.score for span in found] == [0.5, 1, 1, 1, 0.25]
    assert spans_of(TEXT, OFFSETS, ["O", "B-A", "I-A", "O", "O", "O", "O"], [0, 0.5, 1, 0, 0, 0, 0])[0].score == 0.75


def test_names_may_have_hyphens() -> None:
    assert (parted("B-creative-work"), parted("X-ray"), parted("O")) == (
        ("B", "creative-work"),
        ("I", "X-ray"),
        ("O", ""),
    )
    assert tags_of(["a", "b"]) == ["O", "B-a", "I-a", "B-b", "I-b"]
    assert trimmed(" a b ", 0, 5) == (1, 4) and trimmed("   ", 0, 3) == (3, 3)


def test_a_token_that_is_in_a_span_in_part_is_of_it() -> None:
    assert tagged([(0, 0), (0, 4), (4, 8)], [Span(2, 5, "A"), Span(6, 7, "B")]) == ["O", "B-A", "I-A"]


@given(st.lists(st.sampled_from(["a", "b b", " ", ""]), max_size=8), st.data())
def test_tags_and_spans_are_each_others(words: list[str], data: st.DataObject) -> None:
    text, offsets = "", []
    for word in words:
        offsets.append((len(text), len(text) + len(word)))
        text += word
    choice = st.sampled_from(["O", "B-A", "I-A", "B-B", "I-B"])
    tags = data.draw(st.lists(choice, min_size=len(words), max_size=len(words)))
    spans = spans_of(text, offsets, tags)
    assert all(text[span.start : span.end].strip() == text[span.start : span.end] != "" for span in spans)
    assert spans == sorted(spans) and all(a.end <= b.start for a, b in pairwise(spans))
    assert spans_of(text, offsets, tagged(offsets, spans)) == spans
