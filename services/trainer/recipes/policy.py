"""Reinforcement learning from rewards over a group of answers: `python -m services.trainer.recipes.policy JOBDIR`.

GRPO and RLOO of an adapter (`lora`, the default) or all weights (`full`). Knows no service.
"""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from services.trainer.recipes.job.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.job.offline import prepare_process

prepare_process()  # before torch and its kin, which the imports below bring
# ruff: noqa: E402

from datasets import Dataset
from transformers import Trainer
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from services.trainer.recipes.data.rows import Message
from services.trainer.recipes.job.checkpoints import newest
from services.trainer.recipes.learning.progress import ProgressCallback
from services.trainer.recipes.reinforcement.lesson import Lesson
from services.trainer.recipes.reinforcement.reuse import Shuffled, keep_rollout
from services.trainer.recipes.reinforcement.rewards import Rewards, Said
from services.trainer.recipes.reinforcement.rollouts import base_of, drawing
from services.trainer.reinforcement import GROUP_SIZES


def train(job: JobDir) -> Outcome:
    lesson = Lesson.of(job, *METHODS)
    parameters, method, exam = lesson.spec.parameters, lesson.spec.recipe, lesson.exam
    group = parameters.get("group_size") or GROUP_SIZES[method]
    updates = parameters.get("updates_per_rollout") or 1
    progress = ProgressCallback(job, parameters.get("log_every_steps") or 1)
    trainer = METHODS[method](
        parameters,
        {
            **lesson.arguments(group, updates),
            "num_generations": group,
            "max_completion_length": exam.max_tokens,
            "temperature": exam.temperature,
            "num_iterations": updates,
            "epsilon": parameters.get("clip_range") or 0.2,
            "log_completions": False,
        },
        model=lesson.model,
        reward_funcs=as_columns(exam.rewards),
        train_dataset=Dataset.from_list(
            [{"prompt": each.prompt, "reference": each.reference} for each in lesson.asked]
        ),
        processing_class=lesson.tokenizer,
        peft_config=lesson.adapter,
        callbacks=[progress],
    )
    keep_rollout(trainer, updates, newest(job.checkpoints))
    metrics = lesson.taught(trainer, progress)
    if progress.stopped:
        return Outcome(progress.stopped, metrics)
    held = trainer.ref_model  # beside a policy of which all weights are trained
    base = base_of(job, trainer.model) if held is None else partial(nullcontext, held)
    return lesson.ended(trainer.model, base, metrics)


def as_columns(rewards: Rewards) -> Callable[..., list[float]]:
    """The rewards as trl asks for them, of rows with the columns `prompt` and `reference`."""

    def reward(
        prompts: list[list[Message]], completions: list[list[Message]], reference: list[str], **_: Any
    ) -> list[float]:
        texts = (completion[0]["content"] for completion in completions)
        return rewards([Said(*each) for each in zip(prompts, reference, texts, strict=True)])

    return reward


class _Ready:
    """What trl's trainers lack: an order of rows that a resumed run keeps, and a name for what went wrong."""

    def _get_train_sampler(self, dataset: Any = None) -> Shuffled:
        prompts = self.args.generation_batch_size // self.num_generations
        return Shuffled(self, len(dataset or self.train_dataset), prompts, self.num_generations, self.num_iterations)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        with drawing():
            return super()._prepare_inputs(generation_batch)


def grpo(parameters: dict[str, Any], arguments: dict[str, Any], **given: Any) -> Trainer:
    """Shao et al. 2024 (arXiv:2402.03300), its loss a mean over tokens as in DAPO (Yu et al. 2025, arXiv:2503.14476).

    The reference is the base, asked with the adapter switched off, or held beside the policy where all weights are
    trained.
    """

    class Ready(_Ready, GRPOTrainer):
        pass

    beta, scale = parameters.get("beta"), parameters.get("scale_rewards")
    config = GRPOConfig(
        **arguments,
        beta=0.04 if beta is None else beta,
        scale_rewards="none" if scale is False else "group",
        loss_type="dapo",
    )
    return Ready(args=config, **given)


def rloo(parameters: dict[str, Any], arguments: dict[str, Any], **given: Any) -> Trainer:
    """Ahmadian et al. 2024 (arXiv:2402.14740); the reference is as with GRPO."""

    class Ready(_Ready, RLOOTrainer):
        pass

    beta = parameters.get("beta")
    return Ready(args=RLOOConfig(**arguments, beta=0.05 if beta is None else beta), **given)


METHODS: dict[str, Callable[..., Trainer]] = {"grpo": grpo, "rloo": rloo}


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), train))
