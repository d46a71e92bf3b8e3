"""`sluice tasks`: what is proposed, shown, approved and retired, and rows that are checked by what is not built in."""

import io
import json

import pytest
from scripted_suite import Script

from kit.rpc.errors import NotFound
from sluice.cli import run
from sluice.registry import v1 as registry
from sluice.types import v1 as types

REPORT = "projects/default/taskTypes/radiology-report"
FILE = """
extends: sft
metrics: [exact_match]
submit_roles: [ROLE_OPERATIONS]
defaults:
  max_length: 512
  optimization: {learning_rate: 0.0002}
"""


@pytest.fixture(autouse=True)
def suite(address, monkeypatch):
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    monkeypatch.setenv("SLUICE_API_KEY", "sl_test")


def new(*words):
    return run(["tasks", "new", "radiology-report", *words])


def test_what_is_given_wins_over_the_file(script: Script, capsys, tmp_path):
    file = tmp_path / "report.yaml"
    file.write_text(FILE)
    more = ["--metric", "rouge_l", "--metric", "bleu_4", "--gate-policy", "strict", "--submit-key", "ana"]
    assert new("-f", str(file), *more, "--description", "Findings to impression") == 0
    told = capsys.readouterr()
    for words in ("PROPOSED", "rouge_l, bleu_4", "learning_rate 0.0002  max_length 512", "operations, ana", "strict"):
        assert words in told.out, words
    assert "sluice tasks approve radiology-report" in told.err
    made = script.task_types[REPORT]
    assert (made.extends, made.metrics, made.defaults.max_length) == ("sft", ["rouge_l", "bleu_4"], 512)
    assert made.submit_roles == [types.ROLE_OPERATIONS]
    assert made.submit_principals == ["projects/default/apiKeys/ana"]


def test_they_are_listed_shown_approved_and_retired(script: Script, capsys):
    assert new("--extends", "sft", "--submit-role", "approver", "--quiet") == 0
    script.task_types[REPORT].etag = "4"
    assert run(["tasks", "approve", "radiology-report", "--reason", "reviewed", "--etag", "3"]) == 0
    assert run(["tasks", "retire", "radiology-report", "--reason", "over"]) == 0
    assert [(each.name, each.reason) for each in script.requests] == [(REPORT, "reviewed"), (REPORT, "over")]
    assert script.requests[0].etag == "3"
    capsys.readouterr()
    assert run(["tasks", "list"]) == 0
    assert "radiology-report   PROPOSED   sft" in capsys.readouterr().out
    assert run(["tasks", "show", "radiology-report", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["submit_roles"] == ["ROLE_APPROVER"]


@pytest.mark.parametrize(("answer", "code", "etags"), [("y", 0, ["4"]), ("n", 6, []), ("", 2, [])])
def test_who_approves_sees_what_and_approves_that(script: Script, capsys, monkeypatch, answer, code, etags):
    monkeypatch.setattr("sys.stdin", io.StringIO(answer and f"{answer}\n"))
    assert new("--extends", "sft", "--submit-role", "approver") == 0
    script.task_types[REPORT].etag = "4"
    capsys.readouterr()
    assert run(["tasks", "approve", "radiology-report"]) == code
    assert [each.etag for each in script.requests] == etags
    told = capsys.readouterr()
    assert "submits   approver" in told.out
    assert ("sluice tasks approve radiology-report --etag 4" in told.err) is (not answer)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("new Radiology_Report --extends sft", "`Radiology_Report` names no task type; take lower-case words"),
        ("new report --extends sft --submit-role boss", "there is no role `boss`"),
        ("new report -f no.yaml", "there is no file `no.yaml`; give a TaskType as YAML"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(script: Script, capsys, words, said):
    assert run(["tasks", *words.split()]) == 2
    assert said in capsys.readouterr().err and not script.task_types


def test_rows_are_checked_by_the_schema_of_a_task_type_of_the_project(script: Script, capsys, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "findings", "completion": "impression"}\n')
    validate = ["dataset", "validate", str(rows), "--task-type", "radiology-report"]
    script.task_types[REPORT] = registry.TaskType(name=REPORT, row_schema="sft")
    assert run(validate) == 0
    script.task_types[REPORT].row_schema = "preference"
    assert run(validate) == 2
    script.faults["GetTaskType"] = NotFound("there is none")
    capsys.readouterr()
    assert run(["--quiet", *validate]) == 2
    assert "there are no row rules for `radiology-report`; there are asr," in (told := capsys.readouterr().err)
    assert "no suite says more: there is none" in told
