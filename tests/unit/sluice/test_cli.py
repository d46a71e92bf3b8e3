"""The command line over a scripted suite: exit codes, the one sentence, JSON lines, logs of watches."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from scripted_suite import UUID, Script

from kit.rpc import errors as kinds
from sluice.cli import exits, jobs, live, run, screen, trace, words
from sluice.cli.options import Session
from sluice.client.connection import address_of
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.evaluator import v1 as evaluator
from sluice.events import v1 as events
from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

JOB = f"projects/default/trainingJobs/{UUID}"
VERSION = "projects/default/models/bot/versions/3"
ROLLOUT = f"projects/default/endpoints/bot/rollouts/{UUID}"


@pytest.fixture(autouse=True)
def suite(address, monkeypatch):
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    monkeypatch.setenv("SLUICE_API_KEY", "sl_test")


def job(state=types.JOB_STATE_RUNNING, done=0) -> trainer.TrainingJob:
    made = trainer.TrainingJob(name=JOB, state=state)
    made.spec.model = "bot"
    made.progress.CopyFrom(types.Progress(done=done, total=10, figures={"loss": 0.5, "tokens_per_s": 1200}))
    return made


def decided(verdict: int) -> registry.ModelVersion:
    version = registry.ModelVersion(name=VERSION, version=3)
    version.gate_decision.verdict = verdict
    result = version.gate_decision.results.add(value=0.5, threshold=0.6, verdict=verdict)
    result.criterion.metric, result.criterion.at_least = "exact_match", 0.6
    version.gate_decision.reasons.append("exact_match 0.5 is below 0.6")
    return version


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["jbs"], 2, "error: No such command 'jbs'. Did you mean 'jobs'?; `sluice --help` shows what there is"),
        (["jobs", "show"], 2, "error: Missing argument"),
        (["train", "--dataset", "d"], 2, "error: --model is missing"),
        (["train", "--dataset", "d", "--model", "m", "--task-type", "sft", "--layers", "2"], 2, "takes no layers"),
        (["dataset", "upload", "no.jsonl"], 2, "error: there is no file `no.jsonl`"),
        (["dataset", "upload", os.curdir], 2, "error: `.` is a folder; pack it as .zip or .tar"),
        (["dataset", "validate", os.curdir], 2, "error: `.` is a folder; pack it as .zip or .tar"),
        (["dataset", "upload", "no.jsonl", "--tag", "x"], 2, "error: `x` is no tag"),
        (["jobs", "show", UUID], 3, "error: job"),
        (["models", "show", "bot@9"], 3, "does not exist"),
        (["keys", "create", "ci", "--role", "root"], 2, "error: there is no role `root`"),
        (["events", "tail", "--service", "train"], 2, "error: there is no service `train`"),
        (["jobs", "list", "--address", "127.0.0.1:1"], 5, "127.0.0.1:1 does not answer"),
        (["chat", "bot", "hello", "--http", "http://127.0.0.1:1"], 5, "nothing answers at http://127.0.0.1:1"),
        (["--project", "Not An Id", "jobs", "list"], 2, "is no id of a project"),
    ],
)
def test_a_mistake_is_one_sentence_and_a_code(arguments, code, sentence, capsys):
    assert run(arguments) == code
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said and said.startswith("error: ") and said.count("\n") == 1


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (kinds.Invalid("x"), 2), (kinds.NotFound("x"), 3), (kinds.Denied("x"), 4), (kinds.Unauthenticated("x"), 4),
        (kinds.Unavailable("x"), 5), (kinds.Exhausted("x"), 5), (kinds.AlreadyExists("x"), 6), (kinds.Stale("x"), 6),
        (kinds.StateConflict("x"), 6), (kinds.StateConflict("x", reason=errors.ERROR_REASON_INVALID_ROWS), 2),
        (kinds.Corrupt("x"), 1), (kinds.Internal("x"), 1),
    ],
)  # fmt: skip
def test_every_kind_of_fault_has_its_code(fault, code):
    assert exits.code_of(fault) == code


def test_fields_that_the_message_does_not_name_are_shown(capsys):
    exits.report(kinds.Invalid("the request is wrong", violations=[("spec.model", "must be an id")]))
    assert "  spec.model: must be an id" in capsys.readouterr().err


def test_lists_are_tables_or_json_lines(script: Script, capsys):
    script.jobs[JOB] = job(done=4)
    assert run(["jobs", "list"]) == 0
    table = capsys.readouterr().out
    assert "JOB" in table and "0193a5c2-7d1e" in table and "4/10" in table and "RUNNING" in table
    for arguments in (["--json", "jobs", "list"], ["jobs", "list", "--json"]):
        assert run(arguments) == 0
        [line] = capsys.readouterr().out.splitlines()
        assert json.loads(line)["state"] == "JOB_STATE_RUNNING"
        assert json.loads(line)["progress"]["done"] == "4"
        assert json.loads(line)["display_name"] == ""


def test_an_empty_list_says_how_the_first_comes_about(capsys):
    assert run(["jobs", "list"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, "sluice train" in captured.err) == ("", True)
    assert run(["jobs", "list", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("state", "code"), [(types.JOB_STATE_SUCCEEDED, 0), (types.JOB_STATE_FAILED, 1)])
def test_a_watch_writes_a_line_a_change_and_ends_with_the_outcome(script: Script, capsys, state, code):
    script.job_snapshots = [job(types.JOB_STATE_QUEUED), job(done=1), job(done=2), job(done=3), job(state, 10)]
    assert run(["jobs", "watch", UUID]) == code
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["QUEUED", "RUNNING", words.job_state(state)]
    assert "loss 0.5000" in lines[1] and "1 200 tokens/s" in lines[1]
    assert run(["jobs", "watch", UUID, "--json"]) == code
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_ctrl_c_leaves_a_watch_and_the_job_goes_on(capsys):
    def interrupted():
        yield job()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        live.follow(Session(), interrupted(), view=str, line=jobs.line, left="the job goes on")
    captured = capsys.readouterr()
    assert "RUNNING" in captured.out and "the job goes on" in captured.err


@pytest.mark.parametrize(
    ("verdict", "code"),
    [(registry.VERDICT_PASS, 0), (registry.VERDICT_FAIL, 1), (registry.VERDICT_INCONCLUSIVE, 2), (0, 2)],
)
def test_the_gate_speaks_in_exit_codes(script: Script, capsys, verdict, code):
    script.model_versions[VERSION] = decided(verdict)
    assert run(["gate", "explain", "bot@3"]) == code
    captured = capsys.readouterr()
    assert ("≥ 0.6" in captured.out) if verdict else ("has not decided" in captured.err)
    assert run(["gate", "explain", "bot@3", "--json"]) == code


@pytest.mark.parametrize(
    ("state", "code"), [(gateway.ROLLOUT_STATE_PROMOTED, 0), (gateway.ROLLOUT_STATE_ROLLED_BACK, 1)]
)
def test_a_rollout_is_watched_by_its_endpoint(script: Script, capsys, state, code):
    rollout = gateway.Rollout(name=ROLLOUT, model_version=VERSION, state=state, reason="errors rose")
    script.rollouts[ROLLOUT], script.rollout_snapshots = rollout, [rollout]
    assert run(["rollouts", "watch", "bot"]) == code
    assert run(["rollouts", "rollback", UUID[:8], "--reason", "bad"]) == 0
    assert script.requests[-1].reason == "bad"
    assert "errors rose" in "".join(capsys.readouterr())


def test_waiting_for_what_an_event_makes(script: Script, capsys):
    script.model_versions[VERSION] = decided(registry.VERDICT_PASS)
    rollout = gateway.Rollout(name=f"projects/default/endpoints/help/rollouts/{UUID}", model_version=VERSION)
    rollout.state = gateway.ROLLOUT_STATE_PROMOTED
    script.rollouts[rollout.name], script.rollout_snapshots = rollout, [rollout]
    for line in ("gate explain bot", "rollouts watch bot@3", "rollouts watch bot", "rollouts watch help"):
        script.too_early = 2
        assert run([*line.split(), "--wait"]) == 0, line
        assert "; waiting …" in capsys.readouterr().err
    for line in ("gate explain bot", "rollouts watch help"):
        script.too_early = 2
        assert run(line.split()) == 3, line
        script.too_early = 0


def test_the_suite_of_the_home_is_the_one_that_is_meant(script: Script, capsys, monkeypatch, tmp_path: Path):
    address = os.environ["SLUICE_ADDRESS"]
    monkeypatch.delenv("SLUICE_ADDRESS")
    (tmp_path / "home" / "run").mkdir(parents=True, mode=0o700)
    state = tmp_path / "home" / "run" / "suite.json"
    for text in ("{", "[]", "{}", json.dumps({"pid": 0, "address": address})):
        state.write_text(text)
        assert address_of() == "127.0.0.1:7500"
    state.write_text(json.dumps({"pid": os.getpid(), "address": address}))
    assert run(["jobs", "list"]) == 0 and address_of("host:1") == "host:1"
    running = {"pid": os.getpid(), "address": "127.0.0.1:1", "ports": {"gateway": 1, "http": 2}}
    state.write_text(json.dumps(running))
    capsys.readouterr()
    assert run(["doctor", "--json"]) == 1
    found = {each["what"]: each for each in map(json.loads, capsys.readouterr().out.splitlines())}
    assert found["suite"]["verdict"] == "wrong" and "sluice status" in found["suite"]["repair"]
    assert found["gRPC port"]["found"] == "1 is the suite's" and found["HTTP port"]["found"] == "2 is the suite's"
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    assert address_of() == address


def test_the_version_is_told_where_nothing_is_installed_too(capsys):
    assert run(["--version"]) == 0
    assert re.match(r"sluice \d+\.\d+\.\d+", capsys.readouterr().out)


def test_train_takes_flags_over_a_file(script: Script, capsys, tmp_path: Path):
    spec = tmp_path / "spec.yaml"
    spec.write_text("task_type: sft\ndataset: d@2\nmodel: bot\nseed: 7\noptimization: {max_steps: 9}\n")
    assert run(["train", "--file", str(spec), "--max-steps", "5", "--lora-rank", "4", "--model", "other"]) == 0
    sent = script.requests[0].training_job.spec
    assert (sent.model, sent.seed, sent.optimization.max_steps, sent.lora.rank) == ("other", 7, 5, 4)
    assert UUID in capsys.readouterr().out


def test_upload_shows_what_is_wrong_with_the_rows(script: Script, capsys, tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n')
    refusal = dataset.Upload(violation_counts={"missing-field": 1})
    refusal.violations.add(row=1, field="messages", expected="a field `messages`", found="text", repair="add it")
    script.refusals = [refusal]
    assert run(["dataset", "upload", str(file), "--task-type", "sft"]) == 2
    captured = capsys.readouterr()
    assert "messages" in captured.out and "add it" in captured.out
    assert "wrong in row 1, field `messages`: expected" in captured.err
    file.write_text('{"text": "b"}\n')
    assert run(["dataset", "upload", str(file), "--tag", "language=zh"]) == 0
    assert "rows@1" in capsys.readouterr().out
    assert script.datasets["projects/default/datasets/rows"].tags["language"] == "zh"


def test_datasets_are_looked_for_and_changed(script: Script, capsys):
    name = "projects/default/datasets/d"
    script.datasets[name] = dataset.Dataset(name=name, tags={"a": "1", "b": "2"}, etag="4", classification=3)
    assert run(["dataset", "list", "--search", "诊断", "--tag", "a=1", "--filter", "x", "--limit", "5"]) == 0
    assert "sensitive" in capsys.readouterr().out
    assert (script.requests[0].filter, script.requests[0].page_size) == ('(x) AND "诊断" AND tags.a = "1"', 5)
    assert run(["dataset", "update", "d", "--tag", "c=3", "--untag", "a", "--classification", "public"]) == 0
    assert script.requests[1].dataset.etag == "4" and "b=2, c=3" in capsys.readouterr().out
    assert list(script.requests[1].update_mask.paths) == ["tags", "classification"]
    assert run(["dataset", "update", "d"]) == 2
    script.datasets.clear()
    assert run(["dataset", "list", "--search", "x"]) == 0
    assert "no dataset is like that" in capsys.readouterr().err


def test_validate_needs_no_suite(capsys, tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n{"text": 1}\n')
    assert run(["dataset", "validate", str(file), "--task-type", "pretrain"]) == 2
    assert "  2 " in capsys.readouterr().out
    assert run(["dataset", "validate", str(file), "--task-type", "pretrain", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["row"] == 2
    file.write_text('{"text": "a"}\n')
    assert run(["dataset", "validate", str(file), "--task-type", "pretrain"]) == 0
    assert run(["dataset", "validate", str(file), "--task-type", "pretrain", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["row_count"] == 1


def test_whom_a_version_learned_from_is_in_its_tree_with_what_they_saw(script: Script, capsys):
    def known(name: str, rows: str = "", **read: str) -> str:
        version = registry.ModelVersion(name=f"projects/default/models/{name}/versions/1")
        version.lineage.dataset_version = rows
        version.lineage.read_model_versions.update({role.replace("_", "-"): each for role, each in read.items()})
        script.model_versions[version.name] = version
        return version.name

    teacher = known("big", "projects/default/datasets/secret/versions/2")
    known("student", teacher=teacher, judge_fair="projects/default/models/gone/versions/1")
    assert run(["lineage", "student@1"]) == 0
    tree = capsys.readouterr().out
    assert tree.index("judge-fair gone@1") < tree.index("teacher big@1") < tree.index("dataset secret@2")
    assert run(["lineage", "student@1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["read"]
    assert told["judge-fair"].endswith("/gone/versions/1") and told["teacher"]["model_version"]["name"] == teacher
    assert run(["models", "show", "student@1"]) == 0
    assert "judge-fair gone@1, teacher big@1" in capsys.readouterr().out


def test_generations_that_learn_from_one_another_are_read_and_told_once_each(script: Script, capsys):
    class Counted(dict[str, registry.ModelVersion]):
        """Every version that there is, and how often one was asked for."""

        read = 0

        def __contains__(self, name: object) -> bool:
            self.read += 1
            return super().__contains__(name)

    script.model_versions = known = Counted()
    before = ""
    for number in range(1, 10):
        version = registry.ModelVersion(
            name=f"projects/default/models/bot/versions/{number}", base_model_version=before
        )
        if before:
            version.lineage.read_model_versions.update({"teacher": before, "judge-fair": before})
        before = version.name
        known[before] = version
    assert run(["lineage", "bot@9"]) == 0
    tree = capsys.readouterr().out
    assert known.read == 9 and tree.count("see above") == 2 * 8 and "gone" not in tree
    assert tree.index("base bot@8") < tree.index("base bot@1") < tree.index("judge-fair bot@1  see above")
    assert run(["lineage", "bot@9", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["read"] == {"teacher": told["base"]["model_version"]["name"], "judge-fair": told["read"]["teacher"]}


def test_screens_of_everything_else(script: Script, capsys):
    script.jobs[JOB] = job(done=4)
    version = decided(registry.VERDICT_PASS)
    version.lineage.training_job = JOB
    version.lineage.evaluation = f"projects/default/evaluations/{UUID}"
    version.lineage.dataset_version = "projects/default/datasets/d/versions/1"
    script.model_versions[VERSION] = version
    script.models["projects/default/models/bot"] = registry.Model(
        name="projects/default/models/bot", aliases={"stable": 3}
    )
    evaluation = evaluator.Evaluation(name=version.lineage.evaluation, model_version=VERSION, state=9)
    evaluation.report.metrics.add(name="exact_match", value=0.91, low=0.9, high=0.92)
    script.evaluations[evaluation.name] = evaluation
    script.evaluation_rows = [evaluator.EvaluationRow(row=1, reference="a", answer="b", scores={"exact_match": 0})]
    endpoint = gateway.Endpoint(name="projects/default/endpoints/bot")
    endpoint.route.add(model_version=VERSION, weight_percent=90)
    script.endpoints[endpoint.name] = endpoint
    script.events = {
        "trainer": [events.Event(type="sluice.trainer.v1.training_job.succeeded", source="trainer", subject=JOB)]
    }
    script.logs = ["step 1\n"]
    deployment = gateway.Deployment(name=f"projects/default/deployments/{UUID}", model_version=VERSION, state=4)
    deployment.failure.message = "no more room"
    script.deployments = [deployment]
    for line, wanted in {
        "jobs show 0193a5c2": "1 200 tokens/s", "jobs logs 0193a5c2": "step 1", "models list": "stable=3",
        "models versions": "bot@3", "models show bot": "bot@3", "models show bot@3": "PASS",
        "eval list": "exact_match 0.910", "eval show bot@3": "0.9000 … 0.9200", "eval show bot": "0.9000 …",
        "eval watch bot@3": "SUCCEEDED",
        "eval rows bot@3 --wrong": "exact_match 0.00", "endpoints list": "bot@3 90 %", "endpoints show bot": "bot@3",
        "eval retry bot@3": "SUCCEEDED", "rollouts create bot bot": "bot@3", "deployments list": "no more room",
        "rollouts list": "", "events list": "training_job.succeeded", "keys list": "", "projects list": "default",
        "lineage bot@3": "exact_match 0.910", "jobs cancel 0193a5c2": "CANCELLING",
        "keys create ci --role algorithm --expires 7d": "sl_shown_once",
    }.items():  # fmt: skip
        assert run(line.split()) == 0, line
        assert wanted in capsys.readouterr().out, line
        assert run([*line.split(), "--json"]) == 0, line
        for answer in capsys.readouterr().out.splitlines():
            json.loads(answer)


def test_doctor_says_the_repair(capsys, monkeypatch, tmp_path: Path):
    home = tmp_path / "home"
    assert run(["doctor", "--grpc-port", "1", "--http-port", "1", "--json"]) in (0, 1)
    found = {each["what"]: each for each in map(json.loads, capsys.readouterr().out.splitlines())}
    assert found["suite"]["verdict"] == found["gateway"]["verdict"] == "ok"
    home.mkdir(mode=0o755)
    home.chmod(0o755)
    monkeypatch.setenv("SLUICE_KEK", str(home / "kek"))
    monkeypatch.setenv("SLUICE_ADDRESS", "127.0.0.1:1")
    assert run(["doctor"]) == 1
    captured = capsys.readouterr()
    assert f"chmod 700 {home}" in captured.out
    assert "lies inside the home" in captured.out and "nothing answers at 127.0.0.1:1" in captured.out
    assert "home, encryption key" in captured.err


def test_a_trace_is_a_tree_with_many_alike_as_one(capsys, tmp_path: Path):
    known = [(1, "", "train"), (2, "1", "attempt"), *((n, "2", "report") for n in range(3, 9)), (9, "gone", "late")]
    same = {"trace_id": "a" * 32, "service": "trainer", "status": "UNSET", "attributes": {}}
    spans = [
        same | {"span_id": str(n), "parent_id": parent, "name": name, "start_unix_ns": n, "end_unix_ns": n + 1}
        for n, parent, name in known
    ]
    drawn = [(lead, node.record["name"], node.count) for lead, node in trace.walk(trace.tree(spans), every=False)]
    assert drawn == [("├ ", "train", 1), ("│ └ ", "attempt", 1), ("│   └ ", "report", 6), ("└ ", "late", 1)]
    folder = tmp_path / "home" / "logs" / "traces"
    folder.mkdir(parents=True)
    (folder / "trainer.jsonl").write_text("\n".join(map(json.dumps, spans)) + "\n{cut")
    assert run(["trace", "a" * 32]) == 0
    assert "report ×6" in capsys.readouterr().out
    assert run(["trace", "b" * 32]) == 3


def test_time_left_follows_the_pace_seen():
    pace = live.Pace()
    assert pace.left_s(10, 100, now=0.0) is None
    assert pace.left_s(20, 100, now=5.0) == pytest.approx(40.0)
    assert (
        words.duration(3725) == "1 h 2 min" and words.duration(0.25) == "250 ms" and words.duration(61) == "1 min 1 s"
    )


def test_help_loads_no_grpc():
    code = "import sys; from sluice.cli import run; run(['--help']); assert not {'grpc', 'polars'} & {*sys.modules}"
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Exit codes" in answer.stdout


def test_nothing_that_others_wrote_moves_the_terminal(capsys):
    evil = "\x1b]0;title\x07\x1b[2Jseen\x9b31m\tline\n"
    assert screen.cell(evil).plain == "]0;title[2Jseen31m\tline\n"
    exits.complain(evil)
    screen.put(screen.heading(evil))
    said = capsys.readouterr()
    assert "seen" in said.out and "seen" in said.err
    assert not set("\x1b\x07\x9b") & set(said.out + said.err)
