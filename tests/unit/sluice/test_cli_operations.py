"""Commands of people who run a suite: dead letters, gate policies, rollout plans, evaluations by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scripted_suite import UUID, Script

from kit.rpc import errors as kinds
from sluice.cli import run
from sluice.dataset import v1 as dataset
from sluice.events import v1 as events
from sluice.registry import v1 as registry

VERSION = "projects/default/models/bot/versions/3"
ENDPOINT = "projects/default/endpoints/bot"
POLICY = """
description: Better than chance
min_rows: 30
approvals_required: 2
criteria:
  - {metric: exact_match, at_least: 0.5}
  - {metric: rouge_l, not_below_incumbent_by: 0.02}
"""
PLAN = """
steps:
  - {weight_percent: 25, hold: 60s, min_requests: 5}
  - {weight_percent: 100}
max_p95: 1.5s
"""


@pytest.fixture(autouse=True)
def suite(address, monkeypatch):
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    monkeypatch.setenv("SLUICE_API_KEY", "sl_test")


def letter(id: str, service: str = "registry", **fields) -> events.DeadLetter:
    made = events.DeadLetter(id=id, service=service, type="sluice.trainer.v1.training_job.succeeded", replayable=True)
    made.reason, made.size_bytes = "handler failed 5 times, last with KeyError", 2_000_000
    made.MergeFrom(events.DeadLetter(**fields))
    made.bury_time.GetCurrentTime()
    return made


def written(folder: Path, text: str) -> str:
    file = folder / "file.yaml"
    file.write_text(text)
    return str(file)


def test_dead_letters_are_listed_with_their_reason(script: Script, capsys):
    assert run(["events", "dead"]) == 0
    assert "no dead letters" in capsys.readouterr().err
    script.dead_letters = [letter(UUID), letter("SLUICE_REGISTRY-7", "evaluator")]
    assert run(["events", "dead"]) == 0
    said = capsys.readouterr()
    for wanted in (UUID, "trainer training_job.succeeded", "last with KeyError", "2.0 MB", "evaluator"):
        assert wanted in said.out
    assert "`sluice events replay ID`" in said.err
    assert run(["events", "dead", "--service", "evaluator", "--json"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["id"] == "SLUICE_REGISTRY-7"


def test_dead_letters_are_sent_again_by_id_or_all(script: Script, capsys):
    both, other = letter(UUID), letter(UUID, "gateway")
    script.dead_letters = [both, other, letter("0193ffff", "trainer"), letter("large", "dataset", size_bytes=3)]
    script.dead_letters[-1].replayable = False
    assert run(["events", "replay", UUID[:8]]) == 0
    assert "2 sent again" in capsys.readouterr().err
    assert [each.ids for each in script.requests] == [[UUID], [UUID]]  # the event was too much for two services
    assert run(["events", "replay", "--all", "--json"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["id"] == "0193ffff"
    assert run(["events", "replay", "--all"]) == 0
    assert "nothing to replay" in capsys.readouterr().err
    assert [each.id for each in script.dead_letters] == ["large"]


def test_many_dead_letters_are_sent_in_parts(script: Script):
    script.dead_letters = [letter(f"e{number:03}") for number in range(250)]
    assert run(["events", "replay", "--all", "--service", "registry"]) == 0
    assert [len(each.ids) for each in script.requests] == [100, 100, 50]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ("events replay", 2, "say which dead letters: the ids that `sluice events dead` lists, or --all"),
        (f"events replay {UUID} --all", 2, "say which dead letters"),
        (f"events replay {UUID}", 3, f"there is no dead letter `{UUID}`"),
        ("events dead --service train", 2, "there is no service `train`"),
        ("gate policies show no", 3, "does not exist"),
        ("gate policies create p", 2, "Missing option '--file'"),
        ("gate policies create p -f no.yaml", 2, "there is no file `no.yaml`; give a GatePolicy as YAML"),
        ("endpoints update bot", 2, "a plan is missing; give --steps 10,50,100, or --plan FILE"),
        ("endpoints update bot --steps 10,x", 2, "`10,x` are no steps"),
        ("endpoints update bot --steps 99999999999", 2, "are no steps"),
        ("endpoints update bot --steps 100 --hold soon", 2, "`soon` is no length of time"),
        ("endpoints update bot --steps 100 --plan f.yaml", 2, "both give a plan"),
        ("endpoints update bot --steps 100", 3, "does not exist"),
        ("eval create bot", 3, "does not exist"),
    ],
)
def test_a_mistake_is_one_sentence_and_a_code(script: Script, arguments, code, sentence, capsys):
    assert run(arguments.split()) == code
    said = capsys.readouterr().err
    assert sentence in said and said.startswith("error: ") and said.count("\n") == 1


def test_a_bus_that_is_down_is_unavailable(script: Script, capsys):
    down = "the event bus is down; `sluice status` shows whether `nats` runs"
    script.faults["ListDeadLetters"] = kinds.Unavailable(down)
    assert run(["events", "dead"]) == 5
    assert capsys.readouterr().err == f"error: {down}\n"


def test_doctor_tells_of_dead_letters(script: Script, capsys):
    def found() -> dict[str, str]:
        run(["doctor", "--json"])
        lines = map(json.loads, capsys.readouterr().out.splitlines())
        return next((each for each in lines if each["what"] == "dead letters"), {})

    assert found()["verdict"] == "ok"
    script.dead_letters = [letter("a"), letter("b", "evaluator")]
    assert found()["found"] == "2 events could not be handled by evaluator, registry"
    assert found()["verdict"] == "mind" and "`sluice events replay --all`" in found()["repair"]
    script.faults["ListDeadLetters"] = kinds.Denied("no")
    assert found() == {}
    script.faults["ListDeadLetters"] = kinds.Unavailable("the event bus is down")
    assert found()["verdict"] == "wrong"


def test_a_key_may_hold_in_all_projects(script: Script, capsys):
    for more, project in ([], "projects/default"), (["--everywhere"], "projects/-"):
        assert run(["keys", "create", "night-shift", "--role", "operations", *more]) == 0
        assert [each.project for each in script.requests[-1].api_key.role_bindings] == [project]
    assert "operations everywhere" in capsys.readouterr().out


def test_an_event_says_who_caused_it(script: Script, capsys):
    event = events.Event(type="sluice.trainer.v1.training_job.created", source="trainer", subject="projects/p/x/1")
    event.principal = "projects/default/apiKeys/night-shift"
    script.events = {"trainer": [event]}
    assert run(["events", "list"]) == 0
    assert "night-shift" in capsys.readouterr().out


def test_policies_come_from_files_and_go_back_into_them(script: Script, capsys, tmp_path: Path):
    assert run(["gate", "policies", "create", "strict", "-f", written(tmp_path, POLICY)]) == 0
    out = capsys.readouterr().out
    assert "exact_match ≥ 0.5" in out and "rouge_l ≥ incumbent − 0.02" in out and "2 after a PASS" in out
    assert run(["gate", "policies", "list"]) == 0
    assert "strict" in capsys.readouterr().out
    assert run(["gate", "policies", "show", "strict", "--json"]) == 0
    file = written(tmp_path, capsys.readouterr().out.replace('"min_rows": 30', '"min_rows": 7'))
    assert run(["gate", "policies", "update", "strict", "-f", file, "--json"]) == 0
    changed = script.policies["projects/default/gatePolicies/strict"]
    assert (changed.min_rows, changed.etag, len(changed.criteria)) == (7, "1", 2)
    assert json.loads(capsys.readouterr().out)["min_rows"] == 7
    assert run(["gate", "policies", "update", "strict", "-f", written(tmp_path, "min_row: 7")]) == 2
    assert 'no field named "min_row"' in capsys.readouterr().err
    for text, sentence in (("[1]", "holds no fields"), ("{", "is no YAML")):
        assert run(["gate", "policies", "update", "strict", "-f", written(tmp_path, text)]) == 2
        assert sentence in capsys.readouterr().err


def test_an_endpoint_gets_a_plan_from_flags_or_a_file(script: Script, capsys, tmp_path: Path):
    assert run(["endpoints", "create", "bot", "--interface", "chat"]) == 0
    assert not script.endpoints[ENDPOINT].HasField("rollout_plan")
    assert "the suite's default" in capsys.readouterr().out
    assert run(["endpoints", "update", "bot", "--steps", "10,50,100", "--hold", "1m", "--min-requests", "5"]) == 0
    steps = script.endpoints[ENDPOINT].rollout_plan.steps
    assert [(each.weight_percent, each.hold.seconds, each.min_requests) for each in steps] == [
        (10, 60, 5), (50, 60, 5), (100, 60, 5),
    ]  # fmt: skip
    assert "10 → 50 → 100 %" in capsys.readouterr().out
    assert run(["endpoints", "update", "bot", "--plan", written(tmp_path, PLAN)]) == 0
    out = capsys.readouterr().out
    assert "25 → 100 %" in out and "p95 at most 1.5 s" in out and "1 min" in out
    assert run(["endpoints", "create", "help", "--steps", "100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rollout_plan"]["steps"][0]["hold"] == "10s"


def test_an_evaluation_by_hand(script: Script, capsys):
    script.model_versions[VERSION] = registry.ModelVersion(name=VERSION, version=3, task_type="sft")
    rows = dataset.DatasetVersion(name="projects/default/datasets/d/versions/2")
    script.versions[rows.name] = rows
    assert run(["eval", "create", "bot@3"]) == 0
    assert not script.requests[-1].evaluation.HasField("suite")
    assert "bot@3" in capsys.readouterr().out
    assert run(["eval", "create", "bot", "--dataset", "d", "--wait"]) == 0
    suite = script.requests[-1].evaluation.suite
    assert (suite.dataset_version, list(suite.metrics)) == (rows.name, ["exact_match"])
    assert (suite.max_rows, suite.max_tokens) == (7, 9)
    assert "SUCCEEDED" in capsys.readouterr().out
    assert run(["eval", "create", "bot@3", "--dataset", "d@2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["suite"]["dataset_version"] == rows.name


@pytest.mark.parametrize(
    ("line", "wanted"),
    [("gate policies ", "update"), ("events re", "replay"), ("endpoints cre", "create"), ("eval create --w", "--wait")],
)
def test_completion_knows_the_commands(line, wanted):
    words = f"sluice {line}"
    environment = {
        "_SLUICE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    code = "import sys; sys.argv[0] = 'sluice'; from sluice.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert wanted in done.stdout.split(), done.stderr
