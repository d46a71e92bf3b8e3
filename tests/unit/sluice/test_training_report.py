"""A training job as a page with curves, and as an event file that TensorBoard reads."""

import re
from pathlib import Path

import pytest
from scripted_suite import UUID, Script

from sluice.cli import run
from sluice.client.boards import write_events
from sluice.client.training_page import training_page
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

JOB = f"projects/default/trainingJobs/{UUID}"


def job() -> trainer.TrainingJob:
    made = trainer.TrainingJob(name=JOB, display_name="<b>bot</b>", state=types.JOB_STATE_SUCCEEDED)
    made.spec.task_type, made.spec.model, made.spec.optimization.max_steps = "sft", "bot", 30
    made.result.metrics["final_loss"] = 0.125
    made.result.settings["lr_scheduler_type"] = '"cosine"'
    made.create_time.FromSeconds(1700000000)
    return made


def steps() -> list[trainer.TrainingStep]:
    found = []
    for at in range(1, 31):
        found.append(trainer.TrainingStep(step=at, figures={"loss": 3 / at, "learning_rate": 0.01}))
        found[-1].time.FromSeconds(1700000000 + at)
    found.append(trainer.TrainingStep(step=30, evaluation=True, figures={"loss": 0.5}))
    return found


def test_the_page_has_curves_and_facts_and_fetches_nothing():
    page = training_page(job(), steps())
    assert page == training_page(job(), steps())
    assert page.count("<svg") == 2 and "held-out rows" in page
    assert "&lt;b&gt;bot&lt;/b&gt;" in page and "<b>" not in page
    assert "0.125" in page and "&#34;cosine&#34;" in page and "optimization.max_steps" in page
    assert not re.findall(r"(?:src|href)=\"(?!#)|<script|@import", page)
    assert "No figures of single steps" in training_page(job(), [])


def test_tensorboard_reads_the_event_file(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = write_events(tmp_path, job(), steps())
    assert path.parent == tmp_path / "task-type=sft" / UUID
    board = EventAccumulator(str(path.parent)).Reload()
    assert sorted(board.Tags()["scalars"]) == ["task=sft/eval_loss", "task=sft/learning_rate", "task=sft/loss"]
    losses = board.Scalars("task=sft/loss")
    assert [(each.step, each.wall_time) for each in losses] == [(at, 1700000000 + at) for at in range(1, 31)]
    assert losses[3].value == pytest.approx(0.75)
    assert write_events(tmp_path, job(), steps()[:3]) == path and len(list(path.parent.iterdir())) == 1


def test_the_command_writes_what_it_is_asked_for(script: Script, address, monkeypatch, capsys, tmp_path: Path):
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    monkeypatch.setenv("SLUICE_API_KEY", "sl_test")
    script.jobs[JOB], script.steps[JOB] = job(), steps()
    assert run(["jobs", "report", UUID]) == 2
    assert "nothing to write" in capsys.readouterr().err
    assert run(["jobs", "report", UUID, "-o", str(tmp_path / "p.html"), "--tensorboard", str(tmp_path / "tb")]) == 0
    assert "<svg" in (tmp_path / "p.html").read_text() and list((tmp_path / "tb").rglob("*tfevents*"))
