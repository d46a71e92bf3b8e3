"""The reward model: its loss is the paper's, it ranks pairs it never saw, and what it leaves scores as it did."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.trainer.recipes.job.jobdir import run_recorded
from tests.recipes.jobs import command, digests, preferences, progress, result

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

Make = Callable[..., Path]


@pytest.fixture(scope="session")
def reward(blank: Path) -> Any:
    from services.trainer.recipes import reward

    return reward


@pytest.mark.parametrize(
    ("tuner", "rate", "first"),
    [
        ({"lora": {"rank": 8}}, 0.01, [0.692974, 0.689675, 0.635508]),
        ({"full": {}, "center_coefficient": 0.5}, 0.003, [0.786253, 0.809004, 0.692683]),
    ],
    ids=["lora", "full"],
)
def test_held_out_pairs_are_ranked(
    reward: Any, answers_job: Make, tuner: dict[str, Any], rate: float, first: list[float]
) -> None:
    plan = {"max_steps": 40, "batch_size": 16, "warmup_ratio": 0.0, "learning_rate": rate}
    rows, held_out = preferences(start=100, count=96), preferences(start=200, count=24)
    job = answers_job("rm", rows, held_out, optimization=plan, **tuner)
    assert run_recorded(job, reward.train) == 0
    found = result(job)["metrics"]
    assert found["eval_preference_accuracy_before"] < 0.8
    assert found["eval_preference_accuracy"] > 0.95
    assert found["eval_preference_margin"] > found["eval_preference_margin_before"] + 1
    losses = [line["loss"] for line in progress(job, "step")]
    assert losses[:3] == pytest.approx(first, abs=1e-5), losses[:3]
    assert result(job)["artifact"] == {"kind": "full", "path": "out/model"}
    config = json.loads((job / "out" / "model" / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForSequenceClassification"]
    assert config["id2label"] == {"0": "score"} and config["problem_type"] == "regression"
    assert config["pad_token_id"] is not None
    better, worse = reloaded_scores(reward, job, "validation")
    probes = [json.loads(line) for line in (job / "parity.jsonl").read_text().splitlines()]
    assert [probe["kind"] for probe in probes] == ["logits"] * 8
    assert probes[1]["messages"] == held_out[0]["prompt"] + held_out[0]["rejected"]
    both = [score for pair in zip(better.tolist(), worse.tolist(), strict=True) for score in pair]
    assert [probe["values"][0] for probe in probes] == pytest.approx(both[:8], abs=1e-4)
    assert (better - worse).mean().item() == pytest.approx(found["eval_preference_margin"], abs=1e-4)


def reloaded_scores(reward: Any, job: Path, rows: str) -> list[Any]:
    """How the files in `out/` score the chosen answers of rows, and the rejected ones."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job / "out" / "model")
    model = AutoModelForSequenceClassification.from_pretrained(job / "out" / "model", dtype="float32")
    lines = [json.loads(line) for line in (job / "in" / f"{rows}.jsonl").read_text().splitlines()]
    both = ([line["prompt"] + line[side] for line in lines] for side in ("chosen", "rejected"))
    return [
        reward.scores(model, [tokenizer.apply_chat_template(talk, return_dict=True)["input_ids"] for talk in talks])
        for talks in both
    ]


@pytest.mark.parametrize("coefficient", [0.0, 0.3])
def test_the_loss_is_the_papers(reward: Any, answers_job: Make, coefficient: float) -> None:
    import torch

    plan = {"max_steps": 1, "batch_size": 6, "learning_rate": 1e-9}
    job = answers_job("rm", preferences(count=6), optimization=plan, full={}, center_coefficient=coefficient)
    assert run_recorded(job, reward.train) == 0
    better, worse = reloaded_scores(reward, job, "train")
    ours = -torch.nn.functional.logsigmoid(better - worse) + coefficient * (better + worse) ** 2
    assert progress(job, "step")[0]["loss"] == pytest.approx(ours.mean().item(), abs=1e-5)


def test_a_paused_run_ends_as_an_unbroken_one(reward: Any, answers_job: Make) -> None:
    lora = {"rank": 8, "dropout": 0.1}
    whole, paused = (answers_job("rm", preferences(count=20), name=name, lora=lora) for name in ("whole", "paused"))
    assert run_recorded(whole, reward.train) == 0
    command(paused, "pause")
    assert run_recorded(paused, reward.train) == 0
    assert result(paused)["outcome"] == "paused"
    (paused / "control.json").unlink()
    assert run_recorded(paused, reward.train) == 0
    assert digests(paused / "out") == digests(whole / "out")
    assert result(paused)["metrics"]["final_loss"] == result(whole)["metrics"]["final_loss"]


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"max_length": 8}, "All 48 rows are longer than max_length 8; the shortest has "),
        ({"lora": {"quantization": "QUANTIZATION_NF4"}}, "lora.quantization is nf4, but rm holds its base in floats"),
    ],
)
def test_what_cannot_work_is_named(reward: Any, answers_job: Make, parameters: dict[str, Any], sentence: str) -> None:
    job = answers_job("rm", preferences(), **parameters)
    assert run_recorded(job, reward.train) == 1
    assert result(job)["error"]["reason"] == "BAD_INPUT"
    assert result(job)["error"]["message"].startswith(sentence)
