"""The parameters every recipe has, and the trainer's arguments made of them; knows no task."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from trl import SFTConfig

from services.trainer.recipes.failures import BadInput
from services.trainer.recipes.jobdir import JobDir, Spec

# Above this many weights activations are computed twice instead of kept: a fifth slower, much smaller.
CHECKPOINT_ACTIVATIONS_ABOVE = 100_000_000


@dataclass(frozen=True)
class Optimization:
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101); `max_steps` 0 means that `epochs` decides."""

    learning_rate: float
    batch_size: int = 32
    gradient_accumulation_steps: int = 1
    max_steps: int = 0
    epochs: float = 3.0
    warmup_ratio: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    schedule: str = "cosine"

    def given(self, parameters: dict[str, Any]) -> "Optimization":
        """This one, changed to what the spec says; `schedule` as in the proto or without its prefix."""
        known = {f.name for f in fields(self)}
        if unknown := sorted(set(parameters) - known):
            raise BadInput(f"optimization has no field {unknown[0]!r}; its fields are {', '.join(sorted(known))}.")
        said = {k: v for k, v in parameters.items() if v is not None}
        schedule = enum_word(said.pop("schedule", ""), "SCHEDULE_") or self.schedule
        if schedule not in ("cosine", "linear", "constant"):
            raise BadInput(f"optimization.schedule is {schedule!r}; it must be cosine, linear or constant.")
        return replace(self, **said, schedule=schedule)

    def steps(self, rows: int) -> int:
        """Updates in all, from the number of rows."""
        per_epoch = math.ceil(rows / self.batch_size / self.gradient_accumulation_steps)
        return self.max_steps or max(1, math.ceil(per_epoch * self.epochs))


def enum_word(value: str, prefix: str) -> str:
    """`SCHEDULE_COSINE` and `cosine` are both cosine; unspecified is the empty word."""
    word = str(value).removeprefix(prefix).lower()
    return "" if word == "unspecified" else word


def use_bfloat16(parameters: dict[str, Any]) -> bool:
    """Whether to compute under bfloat16 autocast; weights stay float32. Unspecified: on a GPU only."""
    precision = enum_word(parameters.get("precision", ""), "PRECISION_")
    if precision not in ("", "float32", "bfloat16"):
        raise BadInput(f"precision is {precision!r}; it must be float32 or bfloat16.")
    return precision == "bfloat16" or (not precision and torch.cuda.is_available())


def trainer_arguments(
    job: JobDir, spec: Spec, optimization: Optimization, rows: int, weights: int, evaluate: bool
) -> SFTConfig:
    """What the trainer is told: log every step, so a NaN is seen before it is saved; keep two checkpoints."""
    steps = optimization.steps(rows)
    every = spec.parameters.get("checkpoint_every_steps") or 50
    return SFTConfig(
        output_dir=str(job.checkpoints),
        max_steps=steps,
        per_device_train_batch_size=optimization.batch_size,
        per_device_eval_batch_size=optimization.batch_size,
        gradient_accumulation_steps=optimization.gradient_accumulation_steps,
        learning_rate=optimization.learning_rate,
        warmup_steps=math.ceil(steps * optimization.warmup_ratio),
        weight_decay=optimization.weight_decay,
        max_grad_norm=optimization.max_grad_norm,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(optimization.schedule, optimization.schedule),
        bf16=use_bfloat16(spec.parameters),
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=weights > CHECKPOINT_ACTIVATIONS_ABOVE,
        max_length=None,  # the recipe has cut or dropped what is too long
        seed=spec.seed,
        data_seed=spec.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
        eval_strategy="steps" if evaluate else "no",
        eval_steps=every if evaluate else None,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to="none",
    )
