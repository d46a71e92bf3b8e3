"""PPO: its formulas are the papers', rewards go up on prompts that were held out, and a resumed run ends alike."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.trainer.recipes.job.jobdir import run_recorded
from tests.recipes.asking import asks
from tests.recipes.jobs import digests, progress, result

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

Make = Callable[..., Path]
RIGHT = [{"exact_match": {}}]
#: Of the first steps on `wavering`, two to a rollout.
LOSSES = [0.011631, 0.011631, 0.016881, 0.002503, 0.004441, 0.003586, 0.002423]
REWARDS = [0.25, 0.4375, 0.3125, 0.1875]


@pytest.fixture(scope="session")
def ppo(recipes: Any) -> Any:
    from services.trainer.recipes import ppo

    return ppo


def test_advantages_look_ahead_as_the_paper_says(recipes: Any) -> None:
    import torch

    from services.trainer.recipes.reinforcement import proximal

    rewards = torch.tensor([[0.0, 0.0, 1.0], [0.0, 2.0, 0.0]])
    values = torch.tensor([[0.5, 0.2, 0.1], [1.0, 0.5, 9.0]])
    counted = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    # The last is 1 - 0.1 = 0.9; before it 0.1 - 0.2 + 0.5 × 0.9 = 0.35; before that 0.2 - 0.5 + 0.5 × 0.35 = -0.125.
    found = proximal.advantages(rewards, values, counted, 1.0, 0.5)
    assert found.flatten().tolist() == pytest.approx([-0.125, 0.35, 0.9, 0.25, 1.5, 0.0])
    # With γ = 0.9: 0.09 - 0.2 + 0.45 × 0.9 = 0.295, then 0.18 - 0.5 + 0.45 × 0.295 = -0.18725.
    found = proximal.advantages(rewards[:1], values[:1], counted[:1], 0.9, 0.5)
    assert found[0].tolist() == pytest.approx([-0.18725, 0.295, 0.9])
    # λ = 1 without discount is the reward that came, less what was expected.
    assert proximal.advantages(rewards[:1], values[:1], counted[:1], 1.0, 1.0)[0].tolist() == pytest.approx(
        [0.5, 0.8, 0.9]
    )


def test_a_reward_comes_with_the_last_token_and_each_costs_its_distance(recipes: Any) -> None:
    import torch

    from services.trainer.recipes.reinforcement import proximal

    logs, base = torch.tensor([[-1.0, -2.0, -3.0]]), torch.tensor([[-1.5, -1.0, -9.0]])
    found = proximal.token_rewards(torch.tensor([2.0]), logs, base, torch.tensor([[1.0, 1.0, 0.0]]), beta=0.1)
    assert found[0].tolist() == pytest.approx([-0.05, 2.1, 0.0])


def test_what_moved_too_far_no_longer_counts(recipes: Any) -> None:
    import torch

    from services.trainer.recipes.reinforcement import proximal

    logs = torch.tensor([[math.log(1.5), math.log(0.5), math.log(1.1), 7.0]])
    gains, counted = torch.tensor([[1.0, -1.0, 2.0, 5.0]]), torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    # min(1.5, 1.2), min(-0.5, -0.8) and min(2.2, 2.2), their mean negated.
    loss = proximal.policy_loss(logs, torch.zeros(1, 4), gains, counted, 0.2)
    assert loss.item() == pytest.approx(-(1.2 - 0.8 + 2.2) / 3)
    values, old, returns = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 1.9]]), torch.tensor([[2.0, 2.5]])
    # The first is clipped to 0.7, which is further off: 1.3² against 1; the second stays.
    loss = proximal.value_loss(values, old, returns, torch.ones(1, 2), 0.2)
    assert loss.item() == pytest.approx(0.5 * (1.69 + 0.25) / 2)


def test_what_counts_is_whitened(recipes: Any) -> None:
    import torch

    from services.trainer.recipes.reinforcement import proximal

    found = proximal.whitened(torch.tensor([[1.0, 3.0], [5.0, 99.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    spread = math.sqrt(8 / 3)
    assert found.flatten().tolist() == pytest.approx([-2 / spread, 0.0, 2 / spread, 0.0], abs=1e-6)


def test_a_resumed_run_ends_as_an_unbroken_one(ppo: Any, asked_job: Make) -> None:
    # 16 prompts a rollout of 2 steps, so step 5 is the first on a rollout of the second epoch.
    plan = {"max_steps": 7, "batch_size": 8, "gradient_accumulation_steps": 2}
    told = {"updates_per_rollout": 2, "rewards": RIGHT, "lora": {"rank": 8}}
    whole, resumed = (
        asked_job("ppo", asks(count=32), name=name, optimization=plan, checkpoint_every_steps=5, **told)
        for name in ("whole", "resumed")
    )
    assert run_recorded(whole, ppo.train) == 0, result(whole)["error"]
    shutil.copytree(whole / "checkpoints" / "checkpoint-5", resumed / "checkpoints" / "checkpoint-5")
    assert run_recorded(resumed, ppo.train) == 0, result(resumed)["error"]
    assert digests(resumed / "out") == digests(whole / "out")
    assert (resumed / "parity.jsonl").read_bytes() == (whole / "parity.jsonl").read_bytes()
    steps, rest = progress(whole, "step"), progress(resumed, "step")
    assert [line["loss"] for line in rest] == [line["loss"] for line in steps[5:]]
    assert result(whole)["metrics"]["tokens"] == result(resumed)["metrics"]["tokens"] > 4 * 16 * 10
    assert [line["loss"] for line in steps] == pytest.approx(LOSSES, abs=1e-5)
    assert [line["reward"] for line in steps[::2]] == pytest.approx(REWARDS, abs=1e-5)
    assert not any("value_head" in name for name in digests(whole / "out"))


@pytest.mark.prove
def test_held_out_prompts_come_to_be_answered_right(ppo: Any, asked_job: Make) -> None:
    plan = {"max_steps": 100, "batch_size": 96, "schedule": "constant"}
    told = {"rewards": RIGHT, "full": {}, "updates_per_rollout": 2}
    job = asked_job("ppo", asks(count=192), asks(start=200), optimization=plan, **told)
    assert run_recorded(job, ppo.train) == 0, result(job)["error"]
    found = result(job)["metrics"]
    assert found["eval_reward_before"] < 0.5
    assert found["eval_reward"] > 0.85
    assert found["eval_kl"] > 0.05 and 2 < found["eval_completion_length"] < 8
    assert result(job)["artifact"]["kind"] == "full"
    assert len((job / "parity.jsonl").read_text().splitlines()) == 8


@pytest.mark.prove
def test_an_adapter_learns_by_the_defaults(ppo: Any, asked_job: Make, leaning: Path) -> None:
    plan = {"learning_rate": None, "batch_size": None, "max_steps": None}
    job = asked_job("ppo", asks(count=384), asks(start=400), base=leaning, optimization=plan, rewards=RIGHT)
    assert run_recorded(job, ppo.train) == 0, result(job)["error"]
    found = result(job)["metrics"]
    assert found["steps"] == 48 and result(job)["settings"]["learning_rate"] == "0.0018"
    assert found["eval_reward_before"] < 0.6
    assert found["eval_reward"] > found["eval_reward_before"] + 0.2
    assert 0.01 < found["eval_kl"] < 1 and 2 < found["eval_completion_length"] < 8
    assert result(job)["artifact"]["kind"] == "adapter"
