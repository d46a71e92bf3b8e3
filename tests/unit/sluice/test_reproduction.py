"""Two runs of a job side by side, and the commands that make the second."""

import json

import pytest
from scripted_suite import UUID, Script

from sluice.cli import run
from sluice.client.reproduction import compare
from sluice.dataset import v1 as dataset
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

FIRST = "projects/default/trainingJobs/0193a5c1-7d1e-7abc-8def-0123456789ab"
AGAIN = f"projects/default/trainingJobs/{UUID}"
ROWS = "projects/default/datasets/d/versions/1"


def job(name=FIRST, weights="sha256:a", state=types.JOB_STATE_SUCCEEDED, packages=("a==1", "b==1"), **environment):
    made = trainer.TrainingJob(name=name, state=state, reproduces=FIRST if name == AGAIN else "")
    made.spec.model, made.spec.dataset_version = "bot", ROWS
    made.result.artifact.digest, made.result.dataset_digest = weights, "sha256:rows"
    made.result.packages.extend(packages)
    made.result.environment.update(environment)
    return made


def steps(*losses, first=1):
    return [trainer.TrainingStep(step=at, figures={"loss": loss}) for at, loss in enumerate(losses, first)]


def test_the_same_weights_are_the_same_to_the_bit():
    found = compare(job(), job(AGAIN), [], [])
    assert found.reproduced and found.bit_identical and found.verdict.startswith("bit-identical")
    assert found.differences == ()


def test_other_weights_are_within_the_tolerance_or_not():
    before, after = steps(3.0, 2.0, 1.0), steps(3.0, 2.0005, 1.0002)
    found = compare(job(), job(AGAIN, "sha256:b"), before, after)
    assert found.reproduced and not found.bit_identical and found.at == 2
    assert found.verdict == (
        "reproduced within the tolerance of 0.001; the weights differ, and "
        "the losses of 3 steps are at most 0.0005 apart, at step 2"
    )
    found = compare(job(), job(AGAIN, "sha256:b"), before, after, tolerance=0.0001)
    assert not found.reproduced and found.verdict.startswith("not reproduced: beyond the tolerance of 0.0001")


@pytest.mark.parametrize(("before", "after"), [((), ()), ((1.0, 2.0), (1.0,)), ((), (1.0,))])
def test_losses_of_other_steps_prove_nothing(before, after):
    found = compare(job(), job(AGAIN, "sha256:b"), steps(*before), steps(*after))
    assert not found.reproduced and "cannot be compared" in found.verdict


def test_weights_that_neither_left_are_not_the_same():
    assert not compare(job(weights=""), job(AGAIN, ""), [], []).reproduced


def test_a_run_that_failed_reproduces_nothing():
    failed = job(AGAIN, state=types.JOB_STATE_FAILED)
    failed.failure.message = "out of memory"
    found = compare(job(), failed, [], [])
    assert not found.reproduced and found.verdict == "not reproduced: it ended as FAILED: out of memory"


def test_what_was_not_the_same_about_the_runs_is_said():
    again = job(AGAIN, packages=("a==2", "c==1"), cpu="new", pid="2")
    again.result.settings["learning_rate"] = "0.1"
    found = compare(job(cpu="old", pid="1"), again, [], [])
    assert found.differences == (
        "other settings: learning_rate",
        "another lock: 3 packages differ, a, b, c",
        "another processor: old then, new now",
    )
    assert "not known" in compare(job(packages=()), job(AGAIN), [], []).differences[0]


@pytest.fixture
def known(script: Script, address, monkeypatch) -> Script:
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    monkeypatch.setenv("SLUICE_API_KEY", "sl_test")
    script.jobs[FIRST] = job()
    script.versions[ROWS] = dataset.DatasetVersion(name=ROWS, digest="sha256:rows")
    return script


@pytest.mark.parametrize(("weights", "code", "said"), [("sha256:a", 0, "bit-identical"), ("sha256:b", 1, "not repr")])
def test_the_exit_code_says_whether_a_job_was_reproduced(known: Script, capsys, weights, code, said):
    known.job_snapshots = [job(AGAIN, weights)]
    known.steps = {FIRST: steps(2.0, 1.0), AGAIN: steps(2.0, 1.1)}
    assert run(["jobs", "reproduce", FIRST, "--watch"]) == code
    assert said in capsys.readouterr().out
    submitted = [each for each in known.requests if isinstance(each, trainer.CreateTrainingJobRequest)]
    assert submitted[0].training_job.reproduces == FIRST and submitted[0].training_job.spec == job().spec
    assert run(["jobs", "compare", UUID, "--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert told["bit_identical"] == (code == 0) and told["largest"] == pytest.approx(0.1)
    assert run(["jobs", "compare", UUID, "--tolerance", "0.2"]) == 0


def test_rows_that_were_forgotten_cannot_be_trained_on_again(known: Script, capsys):
    known.versions[ROWS].digest = "sha256:fewer"
    assert run(["jobs", "reproduce", FIRST]) == 2
    assert "were forgotten since" in capsys.readouterr().err
    assert run(["jobs", "compare", FIRST]) == 2
    assert "reproduces no job" in capsys.readouterr().err
