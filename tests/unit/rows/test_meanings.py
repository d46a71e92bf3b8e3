"""What names in a file may mean: meanings that there are not, names that no row has, names given for other files."""

import io
import json
from typing import Any

import pytest

from kit.rpc.errors import Invalid
from sluice.rows.checking import Rules
from sluice.rows.columns import CANONICAL, KNOWN
from sluice.rows.convert import Outcome, convert
from sluice.rows.meanings import MEANINGS, check_meanings
from sluice.rows.parts import Part
from tests.unit.rows.archive_files import zipped
from tests.unit.rows.stored import contents

REPORT = {"findings": "f", "impression": "i", "patient_id": "P1"}
MAPPED = {"findings": "prompt", "impression": "completion", "patient_id": "group"}


def run(content: bytes, rules: Rules, name: str = "rows.jsonl") -> tuple[Outcome, list[Any]]:
    parts: list[Part] = []
    return convert(io.BytesIO(content), name, rules, parts.append), contents(parts)


def lines(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_whatever_a_row_schema_reads_is_a_meaning() -> None:
    check_meanings({f"x{name}": name for name in MEANINGS})
    assert MEANINGS >= KNOWN and {*CANONICAL["preference"].names, *CANONICAL["retrieval"].names} <= MEANINGS


@pytest.mark.parametrize(
    ("meaning", "said"), [("grp", "did you mean `group`"), ("impresion", "`impression`"), ("x", "")]
)
def test_a_meaning_that_there_is_not_is_refused(meaning: str, said: str) -> None:
    with pytest.raises(Invalid, match=f"`{meaning}`: there is no such meaning.*{said}.*[Tt]here are .*`group`"):
        check_meanings({"patient_id": meaning})


@pytest.mark.parametrize(
    "odd", [b"", b'{"findings": 1, "impression": ["i"]}\n{"findings": {}}\n'], ids=["columns", "rows"]
)
def test_a_name_that_no_row_has_is_wrong_with_the_file_as_a_whole(odd: bytes) -> None:
    outcome, _ = run(lines(REPORT) + odd, Rules("sft", {"patientid": "group"}, quarantine=True))
    wrong = [each for each in outcome.violations if each.row == 0]
    assert [(each.field, each.kind) for each in wrong] == [("patientid", "missing-column")] and not outcome.accepted
    assert wrong[0].repair.startswith("name one that is there: `patient_id`, `findings`, `impression`")
    found, _ = run(odd + lines({}, REPORT), Rules("sft", MAPPED))
    assert not found.counts["missing-column"]


def test_a_name_that_a_parser_expects_is_missed_too() -> None:
    refused, _ = run(lines(REPORT), Rules("sft", {"text": "tags"}))
    assert (refused.counts, refused.violations[0].field) == ({"missing-column": 1}, "text")


def test_a_name_may_be_in_one_file_of_an_archive_and_nothing_is_missed_where_there_are_no_rows() -> None:
    files = {"a.jsonl": lines(REPORT), "b.jsonl": lines({"prompt": "q", "completion": "a"})}
    assert run(zipped(files), Rules("sft", {"patient_id": "group"}), "a.zip")[0].accepted
    refused, _ = run(zipped(files), Rules("sft", {"pid": "group"}), "a.zip")
    assert refused.counts == {"missing-column": 1}
    assert run(b"{no JSON\n", Rules("sft", MAPPED))[0].counts == {"malformed-json": 1}


@pytest.mark.parametrize("odd", [b"", b'{"findings": 7}\n'], ids=["columns", "rows"])
def test_names_given_for_other_files_hide_nothing_in_rows_without_them(odd: bytes) -> None:
    own = {"prompt": "q", "completion": "a", "group": "P2"}
    half = {"findings": "f", "impression": "i", "group": "P2"}
    both = {**REPORT, "prompt": "hidden", "group": "hidden", "completion": "hidden"}
    meant = [(own, ("q", "a", "P2")), (half, ("f", "i", "P2")), (REPORT, ("f", "i", "P1")), (both, ("f", "i", "P1"))]
    for some in (meant[:1], meant[1:3], meant):
        rules = Rules("sft", MAPPED, quarantine=True, loose=True)
        outcome, found = run(lines(*(row for row, _ in some)) + odd, rules)
        assert outcome.accepted and outcome.refused == bool(odd)
        said = [(each["messages"][0]["content"], each["messages"][1]["content"], each["group"]) for each in found]
        assert said == [expected for _, expected in some]
