"""Names that people give to columns, repairs that are made, and rows that are put aside."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from sluice.rows.checking import Rules
from sluice.rows.convert import Outcome, convert
from sluice.rows.parts import Part
from tests.unit.rows.stored import contents

GOOD = {"prompt": "q", "completion": "a"}


def run(
    rows: list[Any], rules: Rules, write: Callable[[list[Any]], bytes] | None = None
) -> tuple[Outcome, list[Any], list[Any]]:
    content = (write or as_jsonl)(rows)
    parts: list[Part] = []
    aside: list[bytes] = []
    name = "rows.csv" if write is as_csv else "rows.jsonl"
    outcome = convert(io.BytesIO(content), name, rules, parts.append, aside=aside.append)
    return outcome, contents(parts), [json.loads(line) for line in b"".join(aside).splitlines()]


def as_jsonl(rows: list[Any]) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def as_csv(rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@pytest.mark.parametrize("write", [as_jsonl, as_csv])
def test_columns_mean_what_people_say(write: Callable[[list[Any]], bytes]) -> None:
    rows = [
        {"findings": "clear lungs", "impression": "normal", "prompt": "not this"},
        {"findings": " ", "impression": "normal", "prompt": "nor this"},
    ]
    outcome, found, _ = run(rows, Rules("sft", {"findings": "prompt", "impression": "completion"}), write)
    assert [each["messages"][0]["content"] for each in found] == ["clear lungs"]
    assert [(each.row, each.field, each.kind) for each in outcome.violations] == [(2, "prompt", "empty-text")]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"prompt": "q", "completoin": "a"}, "missing-field"),
        ({"prompt": "q", "completion": 5}, "wrong-type"),
        ({"mesages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, "missing-field"),
        ({"messages": [{"role": "usr", "content": "q"}, {"role": "assistant", "content": "a"}]}, "unknown-role"),
        ({"messages": [{"role": "user", "contnet": "q"}, {"role": "assistant", "content": "a"}]}, "missing-field"),
        ({"messages": [{"role": "user", "content": 1}, {"role": "assistant", "content": "a"}]}, "wrong-type"),
    ],
)
def test_what_is_proposed_can_be_made(row: dict[str, Any], kind: str) -> None:
    refused, none, _ = run([row], Rules("sft"))
    assert refused.counts == {kind: 1} and not refused.accepted and none == []
    outcome, found, _ = run([row], Rules("sft", fix=True))
    assert outcome.accepted and outcome.fixed == {kind: 1} and len(found) == 1


def test_several_repairs_of_one_row_are_all_made() -> None:
    row = {"mesages": [{"role": "usr", "contnet": 7}, {"role": "asistant", "content": "a"}]}
    outcome, found, _ = run([row], Rules("sft", fix=True))
    assert outcome.fixed == {"missing-field": 2, "unknown-role": 2, "wrong-type": 1}
    assert found[0]["messages"] == [{"role": "user", "content": "7"}, {"role": "assistant", "content": "a"}]


def test_what_nobody_can_know_is_not_repaired() -> None:
    for row in ({"prompt": "q"}, {"prompt": "q", "completion": ""}, b"{broken", [1]):
        outcome, found, _ = run([row], Rules("sft", fix=True))
        assert found == [] and not outcome.fixed and not outcome.accepted


def test_wrong_rows_are_put_aside_with_what_is_wrong() -> None:
    rows = [GOOD, {"prompt": "q", "completion": ""}, b"{broken", GOOD]
    outcome, found, aside = run(rows, Rules("sft", quarantine=True))
    assert outcome.accepted and outcome.put_aside == 2 and len(found) == 2
    assert [(each["row"], each["kind"], each["content"]) for each in aside] == [
        (2, "empty-text", json.dumps(rows[1])),
        (3, "malformed-json", "{broken"),
    ]


def test_a_file_that_is_wrong_as_a_whole_or_in_every_row_is_refused_all_the_same() -> None:
    assert not run([{"prompt": "q"}], Rules("sft", quarantine=True))[0].accepted
    rules = Rules("sft", quarantine=True)
    assert not convert(io.BytesIO(b"no archive"), "rows.jsonl.gz", rules).accepted
