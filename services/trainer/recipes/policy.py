"""Reinforcement learning from rewards over a group of answers: `python -m services.trainer.recipes.policy JOBDIR`.

GRPO and RLOO of an adapter (`lora`, the default) or all weights (`full`). Knows no service.
"""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from services.trainer.recipes.failures import BadInput
from services.trainer.recipes.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.offline import prepare_process

prepare_process()  # before torch and its kin, which the imports below bring
# ruff: noqa: E402

from datasets import Dataset
from transformers import Trainer, set_seed
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from services.trainer.recipes.base_model import load_base
from services.trainer.recipes.checkpoints import newest
from services.trainer.recipes.optimization import Optimization, trainer_arguments
from services.trainer.recipes.pairs import check_head, parity_prompts, still
from services.trainer.recipes.parity import write_parity
from services.trainer.recipes.progress import ProgressCallback
from services.trainer.recipes.reuse import Shuffled, keep_rollout
from services.trainer.recipes.rewards import Rewards, Said, rewards_of
from services.trainer.recipes.rollouts import (
    MAX_NEW_TOKENS,
    HeldOut,
    base_of,
    check_prompts,
    drawing,
    questions,
    report_rewards,
)
from services.trainer.recipes.rows import Message, read_conversations
from services.trainer.recipes.training import train_or_resume
from services.trainer.recipes.tuning import adapter_config, check_targets, save
from services.trainer.reinforcement import BATCH_SIZE, GROUP_SIZES

ADAPTER_DEFAULTS = Optimization(learning_rate=2e-5, batch_size=BATCH_SIZE, epochs=1.0)
FULL_DEFAULTS = Optimization(learning_rate=1e-6, batch_size=BATCH_SIZE, epochs=1.0)
MAX_LENGTH = 512
MAX_EVAL_ROWS = 256


def train(job: JobDir) -> Outcome:
    job.report("phase", message="reading")
    spec = job.spec()
    if spec.recipe not in METHODS:
        raise BadInput(f"spec.json asks for the recipe {spec.recipe!r}; this is {', '.join(METHODS)}.")
    parameters = spec.parameters
    adapter = adapter_config(parameters)
    optimization = (ADAPTER_DEFAULTS if adapter else FULL_DEFAULTS).given(parameters.get("optimization") or {})
    conversations = read_conversations(job.train_rows)
    held_out = read_conversations(job.validation_rows)[:MAX_EVAL_ROWS] if job.validation_rows.exists() else []

    set_seed(spec.seed)
    tokenizer, model = load_base(job.base)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    still(model)
    if adapter is not None:
        check_targets(model, adapter)
        check_head(adapter)
    max_length = min(parameters.get("max_length") or MAX_LENGTH, model.config.max_position_embeddings)
    room = parameters.get("max_new_tokens") or MAX_NEW_TOKENS
    temperature = parameters.get("temperature") or 1.0
    asked, eval_asked = (questions(tokenizer, some, room, max_length) for some in (conversations, held_out))
    rewards = rewards_of(job, parameters, max_length)

    group, updates = (
        parameters.get("group_size") or GROUP_SIZES[spec.recipe],
        parameters.get("updates_per_rollout") or 1,
    )
    arguments = trainer_arguments(
        job, spec, optimization, len(asked) * group * updates, model.num_parameters(), evaluate=False
    )
    check_prompts(asked, optimization.batch_size * optimization.gradient_accumulation_steps // group)
    progress = ProgressCallback(job, parameters.get("log_every_steps") or 1)
    trainer = METHODS[spec.recipe](
        parameters,
        {
            **arguments,
            "include_num_input_tokens_seen": "no",  # trl counts them
            "num_generations": group,
            "max_completion_length": room,
            "temperature": temperature,
            "num_iterations": updates,
            "epsilon": parameters.get("clip_range") or 0.2,
            "log_completions": False,
        },
        model=model,
        reward_funcs=as_columns(rewards),
        train_dataset=Dataset.from_list([{"prompt": each.prompt, "reference": each.reference} for each in asked]),
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=[progress],
    )
    keep_rollout(trainer, updates, newest(job.checkpoints))
    exam = HeldOut(tokenizer, eval_asked, rewards, room, temperature)
    job.settings.update(max_length=max_length)
    metrics = {
        "rows_dropped": float(len(conversations) - len(asked)),
        **exam.measured(trainer.model),
        **train_or_resume(trainer, job, progress),
        **report_rewards(trainer.state),
    }
    if progress.stopped:
        return Outcome(progress.stopped, metrics)

    held = trainer.ref_model  # beside a policy of which all weights are trained
    metrics |= exam.measured(trainer.model, base_of(job, trainer.model) if held is None else partial(nullcontext, held))
    job.report("phase", message="saving")
    kind = save(job, trainer.model, tokenizer)
    prompts = [each.prompt for each in eval_asked or asked]
    write_parity(job, trainer.model, tokenizer, parity_prompts(tokenizer, prompts, max_length))
    return Outcome("succeeded", metrics, {"kind": kind, "path": "out/model"})


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
