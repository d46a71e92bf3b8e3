"""GRPO and RLOO: rewards go up on prompts that were held out, and what they are told is what happens."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.trainer.recipes.job.jobdir import run_recorded
from tests.recipes.asking import asks
from tests.recipes.jobs import LABELS, command, digests, progress, result

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

Make = Callable[..., Path]
RIGHT = [{"exact_match": {}}]
#: The loss and the mean reward of the first steps on `undecided`.
FIRST = {
    "grpo": (
        [-0.009815, -0.009815, 0.028043, 0.023719, -0.009144, -0.015621, 0.011792],
        [0.296875, 0.359375, 0.34375, 0.25],
    ),
    "rloo": ([0.0, 0.0, 0.0, -0.012562, 0.0, -0.010688, 0.0], [0.296875, 0.359375, 0.34375, 0.296875]),
}


@pytest.fixture(scope="session")
def train(recipes: Any) -> Callable[[Any], Any]:
    from services.trainer.recipes import policy

    return policy.train


@pytest.mark.parametrize("method", ["grpo", pytest.param("rloo", marks=pytest.mark.prove)])
def test_a_resumed_run_ends_as_an_unbroken_one(train: Any, asked_job: Make, method: str) -> None:
    # 8 prompts a rollout of 2 steps, so step 5 is the first on a rollout of the second epoch.
    plan = {"max_steps": 7, "batch_size": 8, "gradient_accumulation_steps": 2}
    told = {"updates_per_rollout": 2, "group_size": 2, "rewards": [*RIGHT, {"length": {"at_most": 9}, "weight": 0.25}]}
    whole, resumed = (
        asked_job(method, asks(count=16), name=name, optimization=plan, checkpoint_every_steps=5, **told)
        for name in ("whole", "resumed")
    )
    assert run_recorded(whole, train) == 0
    shutil.copytree(whole / "checkpoints" / "checkpoint-5", resumed / "checkpoints" / "checkpoint-5")
    assert run_recorded(resumed, train) == 0
    assert digests(resumed / "out") == digests(whole / "out")
    assert (resumed / "parity.jsonl").read_bytes() == (whole / "parity.jsonl").read_bytes()
    steps, rest = progress(whole, "step"), progress(resumed, "step")
    assert [line["loss"] for line in rest] == [line["loss"] for line in steps[5:]]
    assert result(whole)["metrics"]["tokens"] == result(resumed)["metrics"]["tokens"] > 4 * 16 * 10
    losses, rewards = FIRST[method]
    assert [line["loss"] for line in steps] == pytest.approx(losses, abs=1e-5)
    assert [line["reward"] for line in steps[::2]] == pytest.approx(rewards, abs=1e-5)


@pytest.mark.prove
@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("grpo", {"beta": 0.0}),
        ("grpo", {"updates_per_rollout": 2}),
        ("rloo", {"group_size": 8}),
    ],
)
def test_held_out_prompts_come_to_be_answered_right(train: Any, asked_job: Make, method: str, told: Any) -> None:
    plan = {"max_steps": 100, "batch_size": 64, "schedule": "constant"}
    job = asked_job(method, asks(count=192), asks(start=200), optimization=plan, rewards=RIGHT, full={}, **told)
    assert run_recorded(job, train) == 0, result(job)["error"]
    found = result(job)["metrics"]
    assert found["eval_reward_before"] < 0.5
    assert found["eval_reward"] > 0.85
    assert found["eval_kl"] > 0.05 and 2 < found["eval_completion_length"] < 8
    assert result(job)["artifact"]["kind"] == "full"
    assert len((job / "parity.jsonl").read_text().splitlines()) == 8


@pytest.mark.prove
@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_an_adapter_learns_by_the_defaults(train: Any, asked_job: Make, leaning: Path, method: str) -> None:
    plan = {"learning_rate": None, "batch_size": None, "max_steps": None}
    rows = asks(count=384 if method == "rloo" else 192)
    job = asked_job(method, rows, asks(start=400), base=leaning, optimization=plan, rewards=RIGHT)
    assert run_recorded(job, train) == 0, result(job)["error"]
    found = result(job)["metrics"]
    assert found["steps"] == 48 and result(job)["settings"]["learning_rate"] == "0.0018"
    assert found["eval_reward_before"] < 0.6
    assert found["eval_reward"] > found["eval_reward_before"] + 0.2
    assert 0.01 < found["eval_kl"] < 1 and 2 < found["eval_completion_length"] < 8
    assert result(job)["artifact"]["kind"] == "adapter"


@pytest.fixture(scope="session")
def scorer(blank: Path, recipes: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reward model that was never taught."""
    from services.trainer.recipes.reward import load_scorer

    tokenizer, model = load_scorer(blank)
    model.config.pad_token_id = tokenizer.pad_token_id
    folder = tmp_path_factory.mktemp("scorer")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_reward_model_scores_conversations_as_it_was_trained_to(asked_job: Make, scorer: Path) -> None:
    from services.trainer.recipes.data.conversations import tokenize
    from services.trainer.recipes.job.failures import BadInput
    from services.trainer.recipes.job.jobdir import JobDir
    from services.trainer.recipes.reinforcement.reward_model import RewardModel
    from services.trainer.recipes.reward import scores

    job = asked_job("grpo", asks(count=2))
    shutil.copytree(scorer, job / "in" / "reward")
    found = RewardModel.load(JobDir(job), 128)
    said = [row["messages"] for row in asks(count=9)] + [
        [{"role": "user", "content": "?"}, {"role": "assistant", "content": ""}]
    ]
    alone = scores(found.model, [tokenize(found.tokenizer, messages).input_ids for messages in said])
    assert found.scores(said) == pytest.approx(alone.tolist(), abs=1e-5)
    with pytest.raises(BadInput, match="takes 128 tokens and max_length is 129; lower max_length"):
        RewardModel.load(JobDir(job), 129)
    shutil.rmtree(job / "in" / "reward")
    shutil.copytree(job / "in" / "base", job / "in" / "reward")
    with pytest.raises(BadInput, match="is no reward model; name a version of task type rm"):
        RewardModel.load(JobDir(job), 64)


@pytest.mark.prove
def test_what_a_reward_model_likes_is_said_more_often(train: Any, asked_job: Make, scorer: Path) -> None:
    plan = {"max_steps": 40, "batch_size": 64, "learning_rate": 5e-3, "schedule": "constant"}
    told = {
        "reward_model_version": "projects/p/models/rm/versions/1",
        "reward_model_weight": 2.0,
        "full": {},
        "beta": 0.0,
    }
    job = asked_job("rloo", asks(), asks(start=200), optimization=plan, **told)
    shutil.copytree(scorer, job / "in" / "reward")
    assert run_recorded(job, train) == 0, result(job)["error"]
    found = result(job)["metrics"]
    assert found["eval_reward"] > found["eval_reward_before"] + 2 * found["eval_reward_std_before"]


@pytest.mark.prove
def test_the_recipe_runs_as_a_process_and_says_nothing_of_rows(asked_job: Make) -> None:
    long = {"messages": [{"role": "user", "content": "x y " * 100}, {"role": "assistant", "content": "no"}]}
    job = asked_job("grpo", [*asks(count=16), long], asks(start=100, count=4), rewards=RIGHT, full={})
    ended = subprocess.run(
        [sys.executable, "-m", "services.trainer.recipes.policy", str(job)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=600,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = result(job)
    assert found["outcome"] == "succeeded" and found["metrics"]["rows_dropped"] == 1
    assert found["settings"]["num_generations"] == "8" and found["settings"]["log_completions"] == "false"
    told = ended.stdout + ended.stderr + (job / "progress.jsonl").read_text()
    assert not any(word in told for word in (*LABELS, "green", "assistant"))


@pytest.mark.parametrize(
    ("told", "rows", "reason", "sentence"),
    [
        ({}, asks(), "BAD_INPUT", "The spec names no reward; give rewards, or a reward_model_version."),
        (
            {"rewards": RIGHT, "group_size": 3},
            asks(),
            "BAD_INPUT",
            "grpo.group_size is 3, which does not divide the 16",
        ),
        (
            {"rewards": RIGHT},
            asks(count=1),
            "BAD_INPUT",
            "There are 1 rows and a step takes 2 prompts; lower batch_size",
        ),
        (
            {"rewards": RIGHT, "max_length": 9},
            asks(),
            "BAD_INPUT",
            "All 48 rows are longer than max_length 9; the short",
        ),
        (
            {"rewards": RIGHT},
            [{"messages": asks(count=1)[0]["messages"][1:]}],
            "BAD_INPUT",
            "No row has a prompt before its answer; there is nothing to ask the model.",
        ),
    ],
)
def test_what_cannot_work_is_named(
    train: Any, asked_job: Make, told: Any, rows: Any, reason: str, sentence: str
) -> None:
    job = asked_job("grpo", rows, **told)
    assert run_recorded(job, train) == 1
    assert result(job)["error"]["reason"] == reason
    assert result(job)["error"]["message"].startswith(sentence)


def test_what_diverges_is_called_so(train: Any, asked_job: Make) -> None:
    plan = {"learning_rate": 1e38, "warmup_ratio": 0.0, "max_steps": 4}
    job = asked_job("grpo", asks(), optimization=plan, rewards=RIGHT, full={})
    assert run_recorded(job, train) == 1
    assert result(job)["error"]["reason"] == "DIVERGED"


def test_a_pause_is_obeyed_after_the_step(train: Any, asked_job: Make) -> None:
    job = asked_job("grpo", asks(), rewards=RIGHT)
    command(job, "pause")
    assert run_recorded(job, train) == 0
    assert result(job)["outcome"] == "paused" and result(job)["metrics"]["steps"] == 1
    assert (job / "checkpoints" / "checkpoint-1" / "COMPLETE.json").is_file()


@pytest.mark.parametrize("recipe", ["grpo", pytest.param("rloo", marks=pytest.mark.prove), "ppo"])
def test_a_spec_of_the_contract_is_what_the_recipe_reads(asked_job: Make, scorer: Path, recipe: str) -> None:
    from services.trainer.agent.staging import recipe_spec
    from services.trainer.recipes import policy, ppo
    from services.trainer.spec import with_defaults
    from sluice.client.specs import training_spec
    from sluice.trainer import v1 as trainer

    told = {"max_steps": 1, "batch_size": 8, "max_length": 64, "max_new_tokens": 8, "learning_rate": 1e-3}
    rewards = ["exact_match", {"length": {"at_most": 9}, "weight": 0.5}, {"pattern": {"regex": "_"}}]
    spec = training_spec(
        "projects/p",
        dataset="d@1",
        model="bot",
        task_type=recipe,
        base="base@1",
        rewards=rewards,
        reward_model_version="rm@1",
        reward_model_weight=0.25,
        **told,
    )
    job = asked_job(recipe, asks(count=16), asks(start=100, count=4))
    shutil.copytree(scorer, job / "in" / "reward")
    said = recipe_spec(trainer.TrainingJob(name="projects/p/trainingJobs/1", spec=with_defaults(spec, "rewarded")), 1)
    (job / "spec.json").write_text(json.dumps(said))
    assert run_recorded(job, (ppo if recipe == "ppo" else policy).train) == 0, result(job)["error"]
    found = result(job)
    assert found["artifact"]["kind"] == "adapter" and found["metrics"]["steps"] == 1
    assert found["settings"]["temperature"] == "1.0" and found["settings"]["learning_rate"] == "0.001"
    assert {"eval_reward_before", "eval_reward", "eval_kl", "reward", "kl"} <= found["metrics"].keys()
