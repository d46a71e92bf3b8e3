"""The parameters every recipe has, and the trainer's arguments made of them; knows no task."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from services.trainer.distribution import Distribution
from services.trainer.performance import Performance
from services.trainer.recipes.distributed.distribution import arguments
from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir, Spec
from services.trainer.recipes.models.device import accelerator, bfloat16_here, device_type, pins_memory
from services.trainer.recipes.models.stored import stored_in
from services.trainer.refusals import Asked, enum_word, refusals

# Above this many weights activations are computed twice instead of kept: a fifth slower, much smaller.
CHECKPOINT_ACTIVATIONS_ABOVE = 100_000_000
# What GaLore and APOLLO project: the matrices of attention and MLP, whatever a model calls them, as in their papers.
LAYERS = [r".*(attn|attention).*", r".*(mlp|feed_forward|ffn).*"]


@dataclass(frozen=True)
class Optimizer:
    """What transformers calls it, with its arguments; `rate` is its usual learning rate over that of AdamW.

    `{rank}` among the arguments is a quarter of the model's width (Zhao et al. 2024, table 2), which training.py knows.
    """

    optim: str
    arguments: str = ""
    targets: list[str] | None = None
    rate: float = 1.0


OPTIMIZERS = {
    "adamw": Optimizer("adamw_torch_fused"),
    "adamw_8bit": Optimizer("adamw_8bit"),
    "paged_adamw_8bit": Optimizer("paged_adamw_8bit"),
    "adafactor": Optimizer("adafactor"),  # transformers turns its own learning rate off
    # Its updates are scaled by a quarter (Zhao et al. 2024, 5.1), for which the rate makes up.
    "galore": Optimizer("galore_adamw", "rank={rank},update_proj_gap=200,scale=0.25", LAYERS, rate=4.0),
    "apollo": Optimizer("apollo_adamw", "rank={rank},update_proj_gap=200,scale=1.0", LAYERS),
    # Plain gradient descent: a step is as long as the gradient is (Lv et al. 2023 take 3e-2 and more).
    "lomo": Optimizer("lomo", rate=50.0),
}
# Methods whose usual learning rate is not that of LoRA, by tuner or variant, as a multiple of it.
RATES = {
    "rslora": 0.5,  # the same alpha weighs sqrt(rank) times as much
    "lora_plus": 0.25,  # B learns 16 times as fast
    "adalora": 4.0,  # what starts at 0 is a vector between two small matrices (Zhang et al. 2023, table 8)
    "vera": 20.0,  # vectors between matrices that stay as they are (Kopiczko et al. 2024, tables 8 and 9)
    "oft": 2.0,
    "ia3": 20.0,  # scales that begin at 1 (Liu et al. 2022: 3e-3, where LoRA takes 1e-4 and more)
}


@dataclass(frozen=True)
class Optimization:
    """What every recipe can be told of its descent; `max_steps` 0 means that `epochs` decides."""

    learning_rate: float
    batch_size: int = 32
    gradient_accumulation_steps: int = 1
    max_steps: int = 0
    epochs: float = 3.0
    warmup_ratio: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    schedule: str = "cosine"
    optimizer: str = "adamw"

    def given(self, parameters: dict[str, Any]) -> "Optimization":
        """This one, changed to what the spec says; words as in the proto or without their prefix. Raises BadInput."""
        known = {f.name for f in fields(self)}
        if unknown := sorted(set(parameters) - known):
            raise BadInput(f"optimization has no field {unknown[0]!r}; its fields are {', '.join(sorted(known))}.")
        said = {k: v for k, v in parameters.items() if v is not None}
        schedule = enum_word(said.pop("schedule", ""), "SCHEDULE_") or self.schedule
        if schedule not in ("cosine", "linear", "constant"):
            raise BadInput(f"optimization.schedule is {schedule!r}; it must be cosine, linear or constant.")
        optimizer = enum_word(said.pop("optimizer", ""), "OPTIMIZER_") or self.optimizer
        if optimizer not in OPTIMIZERS:
            raise BadInput(f"optimization.optimizer is {optimizer!r}; it must be one of {', '.join(OPTIMIZERS)}.")
        return replace(self, **said, schedule=schedule, optimizer=optimizer)

    def steps(self, rows: int, shares: int = 0) -> int:
        """Updates in all, from the number of rows; on several devices from those of each of `shares` of them.

        Several devices take whole batches alone. Raises BadInput where there are not rows enough for one of each.
        """
        batches = rows // (self.batch_size * shares) if shares else rows / self.batch_size
        if not batches:
            raise BadInput(
                f"The {rows} rows are fewer than one step takes, {self.batch_size} on each of {shares} shares; "
                "lower optimization.batch_size or distribution.devices."
            )
        per_epoch = math.ceil(batches / self.gradient_accumulation_steps)
        return self.max_steps or max(1, math.ceil(per_epoch * self.epochs))


def refuse(job: JobDir, spec: Spec) -> None:
    """Raises BadInput for what cannot be done here; it would be replaced by something else without a word."""
    here = accelerator()
    devices = here.device_count() if here is not None else 0
    if found := refusals(Asked.of(spec.parameters, spec.recipe, device_type(), devices, stored_in(job.base))):
        raise BadInput(" ".join(map(str, found)))


def learning_rate(spec: Spec, optimization: Optimization) -> float:
    """That of the recipe, brought to the method and the optimizer; what the spec says stands."""
    asked = Asked.of(spec.parameters, spec.recipe)
    if asked.optimization.get("learning_rate") is not None:
        return optimization.learning_rate
    of_method = RATES.get(asked.variant or asked.tuner, 1.0)
    return min(1.0, optimization.learning_rate * of_method * OPTIMIZERS[optimization.optimizer].rate)


def use_bfloat16(parameters: dict[str, Any]) -> bool:
    """Whether to compute under bfloat16 autocast; weights stay float32. Unspecified: as the device is made for."""
    precision = enum_word(parameters.get("precision", ""), "PRECISION_")
    if precision not in ("", "float32", "bfloat16"):
        raise BadInput(f"precision is {precision!r}; it must be float32 or bfloat16.")
    return precision == "bfloat16" or (not precision and bfloat16_here())


def trainer_arguments(
    job: JobDir, spec: Spec, optimization: Optimization, rows: int, weights: int, evaluate: bool
) -> dict[str, Any]:
    """Fields of any `TrainingArguments`: log every step, so a NaN is seen before it is saved; keep two checkpoints.

    `weights` is how many the model has. Raises BadInput where the spec asks for what cannot be done here.
    """
    refuse(job, spec)
    optimizer = OPTIMIZERS[optimization.optimizer]
    shared = arguments(job, spec, optimization.batch_size, optimization.gradient_accumulation_steps, rows)
    asked = Distribution.of(spec.parameters)
    steps = optimization.steps(rows, asked.row_shares if asked.devices > 1 else 0)
    every = spec.parameters.get("checkpoint_every_steps") or 50
    return {
        "output_dir": str(job.checkpoints),
        "max_steps": steps,
        "per_device_train_batch_size": optimization.batch_size,
        "per_device_eval_batch_size": optimization.batch_size,
        "gradient_accumulation_steps": optimization.gradient_accumulation_steps,
        "optim": optimizer.optim,
        "optim_args": optimizer.arguments or None,
        "optim_target_modules": optimizer.targets,
        "learning_rate": learning_rate(spec, optimization),
        "warmup_steps": math.ceil(steps * optimization.warmup_ratio),
        "weight_decay": optimization.weight_decay,
        "max_grad_norm": 0.0 if optimization.optimizer == "lomo" else optimization.max_grad_norm,
        "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(optimization.schedule, optimization.schedule),
        "bf16": use_bfloat16(spec.parameters),
        "use_cpu": device_type() == "cpu",
        "seed": spec.seed,
        "data_seed": spec.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "include_num_input_tokens_seen": "non_padding",
        "eval_strategy": "steps" if evaluate else "no",
        "eval_steps": every if evaluate else None,
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": 2,
        "disable_tqdm": True,
        "report_to": "none",
        **_speed(Performance.of(spec.parameters), weights),
        **shared,
    }


def _speed(told: Performance, weights: int) -> dict[str, Any]:
    checkpoints = told.gradient_checkpointing
    return {
        "gradient_checkpointing": weights > CHECKPOINT_ACTIVATIONS_ABOVE if checkpoints is None else checkpoints,
        **({"train_sampling_strategy": "group_by_length"} if told.group_by_length else {}),
        "use_liger_kernel": told.use_liger_kernel,
        "torch_compile": told.torch_compile,
        "dataloader_num_workers": told.dataloader_num_workers,
        "dataloader_persistent_workers": told.dataloader_num_workers > 0,
        "dataloader_pin_memory": pins_memory() if told.dataloader_pin_memory is None else told.dataloader_pin_memory,
    }
