"""Proximal policy optimization: `python -m services.trainer.recipes.ppo JOBDIR`.

The clipped objective of Schulman et al. 2017 (arXiv:1707.06347) with advantages of Schulman et al. 2016
(arXiv:1506.02438), for a language model as in Ouyang et al. 2022 (arXiv:2203.02155): every token is an action, the
reward comes with the last one, and each token costs what it is further from the base. The values are a head on the
policy's own last layer. Trains an adapter (`lora`, the default) or all weights (`full`). Knows no service.
"""

import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.trainer.recipes.job.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.job.offline import prepare_process

prepare_process()  # before torch and its kin, which the imports below bring
# ruff: noqa: E402

import torch
from peft import get_peft_model
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from trl.models.utils import unwrap_model_for_generation

from services.trainer.recipes.job.checkpoints import newest
from services.trainer.recipes.learning.progress import ProgressCallback
from services.trainer.recipes.reinforcement.lesson import Lesson
from services.trainer.recipes.reinforcement.proximal import (
    advantages,
    mean_counted,
    policy_loss,
    token_rewards,
    value_loss,
    whitened,
)
from services.trainer.recipes.reinforcement.reuse import Shuffled, keep_rollout
from services.trainer.recipes.reinforcement.rewards import Rewards
from services.trainer.recipes.reinforcement.rollouts import (
    MAX_NEW_TOKENS,
    Answers,
    Base,
    Question,
    answered,
    base_of,
    said_by,
    token_logits,
)


@dataclass(frozen=True)
class Knobs:
    """What the method can be told."""

    max_tokens: int = MAX_NEW_TOKENS
    temperature: float = 1.0
    beta: float = 0.05
    clip_range: float = 0.2
    value_clip_range: float = 0.2
    value_weight: float = 0.1
    gamma: float = 1.0
    gae_lambda: float = 0.95
    updates: int = 4

    @classmethod
    def given(cls, parameters: dict[str, Any]) -> "Knobs":
        """The defaults, or what the spec says; where 0 means something it is taken as it stands."""
        told = {
            name: parameters[name] for name in ("beta", "value_weight", "gamma", "gae_lambda") if name in parameters
        }
        named = {"max_tokens": "max_new_tokens", "updates": "updates_per_rollout"}
        for name in ("max_tokens", "temperature", "clip_range", "value_clip_range", "updates"):
            if value := parameters.get(named.get(name, name)):
                told[name] = value
        return cls(**told)


def train(job: JobDir) -> Outcome:
    lesson = Lesson.of(job, "ppo")
    model, knobs = lesson.model, Knobs.given(lesson.spec.parameters)
    arguments = lesson.arguments(1, knobs.updates)
    if lesson.adapter is not None:
        if arguments["gradient_checkpointing"]:
            model.enable_input_require_grads()  # else nothing before the first adapter asks for a gradient
        model = get_peft_model(model, lesson.adapter)
    model.value_head = ValueHead(model.config.get_text_config().hidden_size)

    base = base_of(job, model)
    progress = ProgressCallback(job, lesson.spec.parameters.get("log_every_steps") or 1)
    trainer = PpoTrainer(
        model=model,
        args=TrainingArguments(**arguments, remove_unused_columns=False),
        train_dataset=lesson.asked,
        data_collator=list,
        processing_class=lesson.tokenizer,
        callbacks=[progress],
    ).told(knobs, lesson.exam.rewards, base)
    keep_rollout(trainer, knobs.updates, newest(job.checkpoints), value_head=model.value_head)
    job.settings.update(vars(knobs))
    metrics = lesson.taught(trainer, progress)
    if progress.stopped:
        return Outcome(progress.stopped, metrics)
    del model.value_head  # nothing serves it
    return lesson.ended(model, base, metrics)


class ValueHead(torch.nn.Linear):
    """What a text up to a token is worth, from the last layer there; 0 to begin with."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 1)
        torch.nn.init.zeros_(self.weight)
        torch.nn.init.zeros_(self.bias)


class PpoTrainer(Trainer):
    """Has the policy answer a batch of questions, and makes `updates` steps on what that taught."""

    def told(self, knobs: Knobs, rewards: Rewards, base: Base) -> "PpoTrainer":
        self._knobs, self._rewards, self._base = knobs, rewards, base
        self._step, self._buffered_inputs = 0, None
        self._figures: dict[str, list[float]] = defaultdict(list)
        self.model_accepts_loss_kwargs = False  # else its loss would be taken for a sum over an accumulated batch
        return self

    @property
    def _slices(self) -> int:
        return int(self.args.gradient_accumulation_steps)

    def get_train_dataloader(self) -> DataLoader:
        return self._get_dataloader(
            dataset=self.train_dataset,
            description="Training",
            batch_size=self._train_batch_size * self._slices,
            sampler_fn=lambda rows: Shuffled(
                self, len(rows), self._train_batch_size * self._slices, 1, self._knobs.updates
            ),
            is_training=True,
        )

    def _prepare_inputs(self, inputs: list[Question]) -> dict[str, Tensor]:
        if self._step % (self._knobs.updates * self._slices) == 0 or self._buffered_inputs is None:
            self._buffered_inputs = self._rollout(inputs)
        part = self._step % self._slices
        self._step += 1
        rows = slice(part * self._train_batch_size, (part + 1) * self._train_batch_size)
        return {name: column[rows] for name, column in self._buffered_inputs.items()}

    @torch.no_grad()
    def _rollout(self, asked: list[Question]) -> dict[str, Tensor]:
        """Columns of the answers of a batch, all (rows, tokens)."""
        knobs = self._knobs
        with unwrap_model_for_generation(self.model_wrapped, self.accelerator) as model:
            answers = answered(
                model, self.processing_class, [each.ids for each in asked], knobs.max_tokens, knobs.temperature
            )
        worth = torch.tensor(self._rewards(said_by(asked, answers)), device=answers.ids.device)
        logs, values = self._of(self.model, answers)
        with self._base() as base, self.accelerator.autocast():
            base_logs = _logs(token_logits(base, answers, knobs.temperature)[0], answers)
        counted = answers.counted.float()
        rewards = token_rewards(worth, logs, base_logs, counted, knobs.beta)
        gains = advantages(rewards, values, counted, knobs.gamma, knobs.gae_lambda)
        self.state.num_input_tokens_seen += int(answers.seen.sum())
        self._log_answers(worth, mean_counted(logs - base_logs, counted), answers)
        return {
            "ids": answers.ids,
            "seen": answers.seen,
            "counted": counted,
            "logs": logs,
            "values": values,
            "returns": gains + values * counted,
            "gains": whitened(gains, counted),
        }

    def _of(self, model: torch.nn.Module, answers: Answers) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the answers' tokens, and the values before each of them: both (rows, answer tokens)."""
        with self.accelerator.autocast():
            logits, given = token_logits(model, answers, self._knobs.temperature, output_hidden_states=True)
            count = answers.counted.shape[1]
            head = self.accelerator.unwrap_model(model).value_head
            values = head(given.hidden_states[-1][:, -count - 1 : -1])[..., 0]
        return _logs(logits, answers), values.float()

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Tensor:
        """The clipped objective with the values' loss beside it."""
        counted, knobs = inputs["counted"], self._knobs
        logs, values = self._of(model, Answers(inputs["ids"], inputs["seen"], counted, []))
        of_policy = policy_loss(logs, inputs["logs"], inputs["gains"], counted, knobs.clip_range)
        of_values = value_loss(values, inputs["values"], inputs["returns"], counted, knobs.value_clip_range)
        moved = (torch.exp(logs - inputs["logs"]) - 1).abs() > knobs.clip_range
        self._figures["policy_loss"].append(of_policy.item())
        self._figures["value_loss"].append(of_values.item())
        self._figures["clip_fraction"].append(mean_counted(moved.float(), counted).item())
        return of_policy + knobs.value_weight * of_values

    def _log_answers(self, worth: Tensor, kl: Tensor, answers: Answers) -> None:
        self._figures["reward"].append(float(worth.mean()))
        self._figures["reward_std"].append(float(worth.std(correction=0)))
        self._figures["kl"].append(float(kl))
        self._figures["completions/mean_length"].append(float(answers.lengths.mean()))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means of what was found since the last time."""
        logs.update({name: sum(values) / len(values) for name, values in self._figures.items()})
        self._figures.clear()
        super().log(logs, start_time)


def _logs(logits: Tensor, answers: Answers) -> Tensor:
    return logits.log_softmax(-1).gather(2, answers.said[..., None])[..., 0]


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), train))
