"""Preferences, verdicts, matches and labels: the ways they are written, what is wrong with them, and their speed."""

import io
import json
from typing import Any

import pytest

from sluice.rows.checking import Rules, check_frame
from sluice.rows.convert import Outcome, convert
from sluice.rows.formats.json import line_frames
from sluice.rows.parts import Part
from tests.unit.rows.stored import contents

USER = {"role": "user", "content": "q"}
GOOD, BAD = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}
PREFERENCE = {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}
FEEDBACK = {"prompt": [USER], "completion": [GOOD], "label": True}
MATCH = {"query": "q", "positive": ["p"], "negatives": ["n"]}
LABELED = {"text": "t", "label": ["loan"]}
NAMED = {
    "text": "John Smith left New York",
    "entities": [{"start": 0, "end": 10, "label": "PER"}, {"start": 16, "end": 24, "label": "LOC"}],
}
WORDS = NAMED["text"].split()  # type: ignore[attr-defined]
TRIPLES = [[16, 24, "LOC"], [0, 10, "PER"]]


def as_jsonl(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def run(schema: str, *rows: object) -> tuple[Outcome, list[Any]]:
    parts: list[Part] = []
    outcome = convert(io.BytesIO(as_jsonl(*rows)), "rows.jsonl", Rules(schema), parts.append)
    return outcome, contents(parts)


@pytest.mark.parametrize(
    ("schema", "row", "canonical"),
    [
        ("preference", {"prompt": "q", "chosen": "good", "rejected": "bad"}, PREFERENCE),
        ("preference", PREFERENCE, PREFERENCE),
        ("preference", {"chosen": [USER, GOOD], "rejected": [USER, BAD]}, PREFERENCE),
        ("preference", {"prompt": "q", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, PREFERENCE),
        ("preference", {"messages": [USER, GOOD], "rejected_response": "bad"}, PREFERENCE),
        ("preference", {"messages": [USER, GOOD], "rejected_response": ["bad", "worse"]}, PREFERENCE),
        ("preference", {"query": "q", "response": "good", "rejected_response": "bad"}, PREFERENCE),
        ("preference", {"instruction": "q", "input": "", "chosen": "good", "rejected": "bad"}, PREFERENCE),
        (
            "preference",
            {
                "conversations": [{"from": "human", "value": "q"}],
                "chosen": {"from": "gpt", "value": "good"},
                "rejected": {"from": "gpt", "value": "bad"},
            },
            PREFERENCE,
        ),
        ("feedback", {"prompt": "q", "completion": "good", "label": True}, FEEDBACK),
        ("feedback", {"prompt": "q", "completion": "good", "label": 1}, FEEDBACK),
        ("feedback", {"prompt": "q", "completion": "good", "label": "True"}, FEEDBACK),
        ("feedback", {"messages": [USER, GOOD], "label": True}, FEEDBACK),
        ("feedback", {"instruction": "q", "output": "good", "kto_tag": True}, FEEDBACK),
        ("retrieval", MATCH, MATCH),
        ("retrieval", {"anchor": "q", "positive": "p", "negative": "n"}, MATCH),
        ("retrieval", {"query": "q", "pos": ["p"], "neg": ["n"]}, MATCH),
        ("retrieval", {"query": "q", "response": "p", "rejected_response": "n"}, MATCH),
        ("retrieval", {"sentence1": "q", "sentence2": "p"}, {**MATCH, "negatives": []}),
        ("classification", {"text": "t", "label": "loan"}, LABELED),
        ("classification", {"sentence": "t", "label": ["loan"]}, LABELED),
        ("classification", {"text": "t", "label": 3}, {"text": "t", "label": ["3"]}),
        ("classification", {"text": "t", "labels": ["a", "b"]}, {"text": "t", "label": ["a", "b"]}),
        ("entities", NAMED, NAMED),
        ("entities", {"tokens": WORDS, "ner_tags": ["B-PER", "I-PER", "O", "B-LOC", "I-LOC"]}, NAMED),
        ("entities", {"tokens": WORDS, "tags": ["I-PER", "I-PER", "O", "B-LOC", "E-LOC"]}, NAMED),
        ("entities", {"tokens": WORDS, "labels": ["PER", "PER", "O", "LOC", "LOC"]}, NAMED),
        ("entities", {"text": NAMED["text"], "entities": TRIPLES}, NAMED),
        ("entities", {"text": NAMED["text"], "label": [*TRIPLES, TRIPLES[0]]}, NAMED),
        (
            "entities",
            {
                "text": NAMED["text"],
                "spans": [
                    {"start": 0, "end": 11, "text": "John Smith ", "labels": ["PER"]},
                    {"id": 4, "start_offset": 16, "end_offset": 24, "label": "LOC"},
                ],
            },
            NAMED,
        ),
        (
            "entities",
            {"tokens": list("张三 在北京"), "ner_tags": ["B-PER", "I-PER", "O", "O", "B-LOC", "I-LOC"]},
            {
                "text": "张三在北京",
                "entities": [{"start": 0, "end": 2, "label": "PER"}, {"start": 3, "end": 5, "label": "LOC"}],
            },
        ),
        ("entities", {"text": "nobody", "entities": []}, {"text": "nobody", "entities": []}),
    ],
)
def test_every_convention_gives_the_canonical_row(schema: str, row: dict[str, Any], canonical: dict[str, Any]) -> None:
    outcome, found = run(schema, {**row, "id": 7})
    assert outcome.violations == [] and found == [{**canonical, "id": "7"}]


@pytest.mark.parametrize(
    ("schema", "row", "field", "kind"),
    [
        ("preference", {"prompt": "q", "chosen": "a"}, "rejected", "missing-field"),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": "a"}, "rejected", "equal-answers"),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": " "}, "rejected", "empty-text"),
        ("preference", {"chosen": "a", "rejected": "b"}, "prompt", "missing-role"),
        ("preference", {"prompt": [USER, GOOD], "chosen": "a", "rejected": "b"}, "prompt[1]", "wrong-last-role"),
        ("feedback", {"prompt": "q", "completion": "a"}, "label", "missing-field"),
        ("feedback", {"prompt": "q", "completion": "a", "label": "good"}, "label", "wrong-type"),
        ("feedback", {"completion": "a", "label": True}, "prompt", "missing-role"),
        ("retrieval", {"query": "q"}, "positive", "missing-field"),
        ("retrieval", {"query": "q", "positive": []}, "positive", "empty-list"),
        ("retrieval", {"query": "q", "positive": ["p", ""]}, "positive[1]", "empty-text"),
        ("classification", {"text": "t"}, "label", "missing-field"),
        ("classification", {"text": "t", "lable": "a"}, "label", "missing-field"),
        ("classification", {"text": "t", "label": 1.5}, "label", "wrong-type"),
        ("classification", {"text": "", "label": "a"}, "text", "empty-text"),
        ("entities", {"text": "John", "entties": []}, "entities", "missing-field"),
        ("entities", {"entities": []}, "text", "missing-field"),
        ("entities", {"tokens": ["John"]}, "ner_tags", "missing-field"),
        ("entities", {"tokens": ["John"], "ner_tags": ["O", "O"]}, "ner_tags", "unequal-lengths"),
        ("entities", {"tokens": ["John"], "ner_tags": [3]}, "ner_tags[0]", "wrong-type"),
        ("entities", {"tokens": [" "], "ner_tags": ["O"]}, "tokens", "empty-text"),
        ("entities", {"tokens": "John", "ner_tags": ["O"]}, "tokens", "wrong-type"),
        ("entities", {"text": "John", "entities": [[0, 5, "PER"]]}, "entities[0]", "wrong-span"),
        ("entities", {"text": "John", "entities": [[2, 2, "PER"]]}, "entities[0]", "wrong-span"),
        ("entities", {"text": "John", "entities": [[0, 4, ""]]}, "entities[0]", "wrong-type"),
        ("entities", {"text": "John", "entities": [[0, "4", "PER"]]}, "entities[0]", "wrong-type"),
        ("entities", {"text": "John", "entities": ["PER"]}, "entities[0]", "wrong-type"),
        ("entities", {"text": "J   n", "entities": [[1, 3, "PER"]]}, "entities[0]", "empty-text"),
        (
            "entities",
            {"text": "John", "spans": [{"start": 1, "end": 4, "text": "John", "label": "PER"}]},
            "spans[0]",
            "wrong-span",
        ),
        ("entities", {"text": "John", "entities": [[0, 3, "A"], [2, 4, "B"]]}, "entities", "crossing-spans"),
    ],
)
def test_a_violation_names_place_and_kind(schema: str, row: dict[str, Any], field: str, kind: str) -> None:
    outcome, found = run(schema, row)
    assert [(each.field, each.kind) for each in outcome.violations] == [(field, kind)] and found == []
    assert outcome.violations[0].repair


@pytest.mark.parametrize(
    ("schema", "row"),
    [
        ("sft", {"prompt": "q", "completion": "a"}),
        ("sft", {"messages": [USER, GOOD], "source": "x"}),
        ("sft", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}),
        ("pretrain", {"text": "t"}),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": "b"}),
        ("preference", {"instruction": "q", "input": "i", "chosen": "a", "rejected": "b", "system": "s"}),
        ("feedback", {"prompt": "q", "completion": "a", "label": False}),
        ("retrieval", {"query": "q", "positive": "p", "negatives": ["n"]}),
        ("retrieval", {"anchor": "q", "positive": ["p"]}),
        ("classification", {"text": "t", "label": "a"}),
        ("classification", {"sentence": "t", "label": 2}),
        ("entities", NAMED),
        ("entities", {"sentence": " 诊断 𝒳 张三", "spans": [{"label": "PER", "end": 8, "start": 6}]}),
    ],
)
def test_what_is_usual_is_checked_over_columns(schema: str, row: dict[str, Any]) -> None:
    def never(index: int) -> bytes:
        raise AssertionError("a row was looked at alone")

    (cut,) = line_frames(iter([as_jsonl(*[row] * 3)]))
    frame = cut()
    frame = type(frame)(frame.numbers, frame.columns, never)
    assert len(check_frame(frame, Rules(schema)).rows) == 3
