"""`sluice train --plan`: what it asks for, how the answer looks, and what it exits with."""

import json

import pytest
from scripted_suite import Script

from sluice.cli import run
from sluice.trainer import v1 as trainer

ASK = ["train", "--dataset", "d", "--task-type", "sft", "--base", "base@1", "--plan", "--max-length", "64"]


@pytest.fixture(autouse=True)
def suite(address, monkeypatch):
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    monkeypatch.setenv("SLUICE_API_KEY", "sl_test")


def planned(fits: bool) -> trainer.TrainingPlan:
    plan = trainer.TrainingPlan(architecture="qwen3", device="a10-24gb", devices=8, sharding=trainer.SHARDING_ZERO3)
    plan.parameters.total, plan.parameters.trainable, plan.tuner = 596_049_920, 10_092_544, "lora"
    plan.memory.weights_bytes, plan.memory.peak_bytes, plan.memory.limit_bytes = (
        2_384_000_000,
        3_960_000_000,
        22_215_000_000,
    )
    plan.step_time.seconds, plan.total_time.seconds, plan.steps, plan.fits = 2, 3600, 1800, fits
    plan.pools.add(device="a100-40gb", devices=2, nodes=1, sharding=trainer.SHARDING_ZERO3, peak_bytes=10**9)
    plan.advice, plan.time_basis = "it fits on 8 × a10-24gb.", "as stated"
    return plan


@pytest.mark.parametrize(("fits", "code"), [(True, 0), (False, 1)])
def test_a_plan_is_a_table_and_submits_nothing(script: Script, capsys, fits, code):
    script.plan = planned(fits)
    assert run([*ASK, "--on", "a10-24gb", "--devices", "8", "--sharding", "zero3", "--tflops", "50"]) == code
    [asked] = script.requests
    assert isinstance(asked, trainer.PlanTrainingJobRequest)
    assert (asked.device, asked.devices, asked.sharding, asked.tflops) == ("a10-24gb", 8, trainer.SHARDING_ZERO3, 50)
    assert (asked.spec.max_length, asked.spec.base_model_version) == (64, "projects/default/models/base/versions/1")
    said = capsys.readouterr().out
    for words in ("qwen3, 596 M parameters", "10.1 M (lora)", "8 × a10-24gb, zero3", "4.0 GB of 22.2 GB", "a100-40gb"):
        assert words in said, said
    assert "It fits on 8 × a10-24gb." in said


def test_a_speed_that_is_not_known_is_asked_for_by_its_options(script: Script, capsys):
    script.plan = planned(True)
    script.plan.time_basis = "no speed of cpu is known"
    for field in ("step_time", "total_time"):
        script.plan.ClearField(field)
    assert run(ASK) == 0
    said = capsys.readouterr()
    assert "no speed of cpu is known" in said.out and "rests on" not in said.out
    assert "--tokens-per-s" in said.err and "--tflops" in said.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train --plan", "--dataset is missing; a plan needs it, or --file spec.yaml"),
        ("train --plan --dataset d --watch", "--plan submits nothing, so there is nothing to --watch"),
    ],
)
def test_what_a_plan_lacks_or_cannot_do_is_said(script: Script, capsys, line, said):
    assert run(line.split()) == 2
    assert said in capsys.readouterr().err and not script.requests


def test_a_plan_is_one_json_line(script: Script, capsys):
    script.plan = planned(True)
    assert run([*ASK, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["memory"]["peak_bytes"] == "3960000000"


def test_a_sharding_that_is_none_is_refused_here(script: Script, capsys):
    assert run([*ASK, "--sharding", "zero9"]) == 2
    assert "zero1, zero2, zero3" in capsys.readouterr().err and not script.requests
