"""What a filter says, and what is said of one that says nothing."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.rpc import filters
from kit.rpc.errors import Invalid
from kit.rpc.filters import And, Condition, Fields, Node, Not, Or, Text

PLAIN = Fields(["state", "task_type"])
ALL = Fields(["state", "create_time"], maps=["tags"], lists=["modalities"], text=True)
A, B, C = (Condition("state", "=", name) for name in "ABC")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("  ", None),
        ('state = "A"', A),
        ("state = A", A),
        ("state='A'", A),
        ("state:A", A),
        ("(state = A)", A),
        ("state <= 1", Condition("state", "<=", "1")),
        ("state > -1", Condition("state", ">", "-1")),
        ('state!="A"AND task_type = "sft"', And((Condition("state", "!=", "A"), Condition("task_type", "=", "sft")))),
        (r'state = "a \"b\" \\ AND c"', Condition("state", "=", r'a "b" \ AND c')),
        ('state = "a\nb"', Condition("state", "=", "a\nb")),
        ("NOT state = A", Not(A)),
        ("-state = A", Not(A)),
        ("-(state = A OR state = B)", Not(Or((A, B)))),
        ("state = A AND state = B OR state = C", And((A, Or((B, C))))),
        ("(state = A AND state = B) OR state = C", Or((And((A, B)), C))),
        ("state = A state = B", And((A, B))),
        ("state = A -state = B", And((A, Not(B)))),
        ("state = projects/p/models/m/versions/3", Condition("state", "=", "projects/p/models/m/versions/3")),
    ],
)
def test_what_filters_say(text: str, expected: Node | None) -> None:
    assert filters.parse(text, PLAIN) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tags.language = zh", Condition("tags", "=", "zh", "language")),
        ('tags.language:"zh"', Condition("tags", "=", "zh", "language")),
        ("tags.language != zh", Condition("tags", "!=", "zh", "language")),
        ("tags:language", Condition("tags", "*", key="language")),
        ("tags.language:*", Condition("tags", "*", key="language")),
        ("tags:*", Condition("tags", "*")),
        ('tags.a-b_c = "*"', Condition("tags", "=", "*", "a-b_c")),
        ("modalities:image", Condition("modalities", ":", "image")),
        ("modalities:*", Condition("modalities", "*")),
        ("create_time > 2026-01-31T08:00:00+08:00", Condition("create_time", ">", "2026-01-31T08:00:00+08:00")),
        ("诊断", Text("诊断")),
        ("chest x-ray", And((Text("chest"), Text("x-ray")))),
        ('"chest x-ray" radiol*', And((Text("chest x-ray"), Text("radiol", prefix=True)))),
        ("-draft OR NOT state=A", Or((Not(Text("draft")), Not(A)))),
        ("state", Text("state")),
        ("foo (bar)", And((Text("foo"), Text("bar")))),
        ("and", Text("and")),
    ],
)
def test_maps_lists_times_and_words(text: str, expected: Node) -> None:
    assert filters.parse(text, ALL) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('color = "red"', "`color`.*`state`, `task_type`"),
        ('state = "A" AND', "ends too early"),
        ("AND state = A", "`AND` where a condition should stand"),
        ("state = A OR OR state = B", "`OR` where"),
        ("state = AND", "with nothing"),
        ("state =", "with nothing"),
        ("state = = A", "with nothing"),
        ("state", "form"),
        ("'state' = A", "form"),
        ('state = "A', "quote that does not end.*form"),
        ("state ! A", "form"),
        ("state = A)", r"`\)` without"),
        ("(state = A", r"`\(` without"),
        ("()", "where a condition"),
        ("state = a*", "wildcards"),
        ("state:*", "always is"),
        ("x" * 2000, "longer"),
        ("state = A " * 51, "more than 50"),
        ("(" * 400 + "state = A" + ")" * 400, "more than 10"),
        ("state = \x00", "NUL"),
        ("state = \ud800", "half a character"),
    ],
)
def test_filters_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        filters.parse(text, PLAIN)
    assert caught.value.reason_name == "INVALID_FILTER" and caught.value.violations


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tags = x", "is a map; write `tags.key"),
        ("tags.language > a", "is a map"),
        ("tags. = a", "`tags.`, which cannot"),
        ('tags:""', "without a name"),
        ("modalities = image", "is a list; write `modalities:value`"),
        ("size(tags) > 3", "calls `size`"),
        ("a*b", "end of a word"),
        ("http://x", "`http`, which cannot.*quote it"),
    ],
)
def test_maps_lists_and_words_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        filters.parse(text, ALL)
    assert caught.value.reason_name == "INVALID_FILTER"


CHARACTERS = st.one_of(st.characters(), st.sampled_from([*"()\"'\\-*:=<>!., \0", "AND", "OR", "NOT", "tags", "state"]))


@given(st.lists(CHARACTERS, max_size=60).map("".join))
def test_no_filter_breaks_the_parser(text: str) -> None:
    for fields in (PLAIN, ALL):
        with suppress(Invalid):
            filters.parse(text, fields)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["=", "!="]), st.text(max_size=20)), max_size=4))
def test_a_written_filter_reads_back(conditions: list[tuple[str, str, str]]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    if any("\0" in value for _, _, value in conditions):
        return
    written = " AND ".join(f"{field} {op} {quoted(value)}" for field, op, value in conditions)
    read = filters.parse(written, Fields("ab"))
    expected = tuple(Condition(*each) for each in conditions)
    assert read == (And(expected) if len(expected) > 1 else expected[0] if expected else None)
