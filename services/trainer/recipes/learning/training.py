"""Runs a trainer to its end, from the newest whole checkpoint where there is one; knows no task."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer
from transformers import PrinterCallback, Trainer

from services.trainer.recipes.data.packing import together_again
from services.trainer.recipes.distributed.distribution import agreed
from services.trainer.recipes.distributed.ranks import world
from services.trainer.recipes.distributed.shared import train_shared
from services.trainer.recipes.job.checkpoints import newest
from services.trainer.recipes.job.failures import RecipeError
from services.trainer.recipes.job.jobdir import JobDir
from services.trainer.recipes.learning.bucketing import take_by_length
from services.trainer.recipes.learning.progress import ProgressCallback
from services.trainer.recipes.learning.proof import counted, optimizer_found, settings_found, template_digest
from services.trainer.recipes.learning.utilization import utilization
from services.trainer.recipes.models.quantization import as_floats, is_quantized
from services.trainer.recipes.models.rank_allocation import RankAllocation
from services.trainer.recipes.models.stored import held_as
from services.trainer.refusals import Asked

LOSS_WINDOW = 10
LORA_PLUS_RATIO = 16.0  # of Hayou et al. 2024 (arXiv:2402.12354)


def train_or_resume(trainer: Trainer, job: JobDir, progress: ProgressCallback) -> dict[str, float]:
    """Train; returns the metrics so far. `progress.stopped` says whether it was paused or cancelled.

    What a tuner or an optimizer of the spec needs of the trainer is seen to here. Metrics also tell how many
    parameters there are and are trained; `job.notes` the optimizer and the numbers it held, and the template;
    `job.settings` what the trainer was set to.
    """
    trainer.remove_callback(PrinterCallback)
    checkpoint = agreed(newest(job.checkpoints) if job.leads else None)
    if checkpoint is not None:
        job.report("phase", message=f"resuming from {checkpoint.name}")
    _prepare(trainer, Asked.of(job.spec().parameters, job.spec().recipe), checkpoint)
    train_shared(trainer, job, progress, checkpoint)
    together_again(trainer.model)
    job.notes.update({**optimizer_found(trainer), **template_digest(trainer), **held_as(trainer.model)})
    job.settings.update({**settings_found(trainer), **job.settings})  # where a recipe says more, that stands
    found = _metrics(trainer, progress)
    return {**found, **counted(trainer.model), **utilization(trainer, job, found["tokens_per_s"])}


def last_evaluation(trainer: Trainer) -> dict[str, Any]:
    """What held-out rows say of the trained model. Several processes asked it together, before they parted."""
    if world() == 1:
        return dict(trainer.evaluate())
    return next(entry for entry in reversed(trainer.state.log_history) if "eval_loss" in entry)


def _prepare(trainer: Trainer, asked: Asked, checkpoint: Path | None) -> None:
    model = trainer.model
    if bool(asked.quantization) != is_quantized(model):
        raise RecipeError(f"The spec asks for the quantization {asked.quantization!r}, and the base is not held so.")
    if is_quantized(model):
        as_floats(model)
    if asked.performance.group_by_length:
        take_by_length(trainer)
    if asked.tuner == "adalora":
        # Before the others: what it leaves in a checkpoint must be there when that is sealed.
        trainer.callback_handler.callbacks.insert(0, RankAllocation(model, checkpoint))
    if asked.variant == "lora_plus":
        trainer.optimizer = _loraplus(trainer, model, asked.of_tuner("learning_rate_ratio") or LORA_PLUS_RATIO)
    if asked.optimizer in ("galore", "apollo"):
        width = model.config.get_text_config().hidden_size
        trainer.args.optim_args = trainer.args.optim_args.format(rank=max(1, width // 4))
        # Their checkpoints hold their projectors, which torch restores only where it is told that they are harmless.
        torch.serialization.add_safe_globals(_projectors())


def _loraplus(trainer: Trainer, model: PeftModel, ratio: float) -> torch.optim.Optimizer:
    """The optimizer that was asked for, with B's learning rate that many times A's."""
    kind, given = trainer.get_optimizer_cls_and_kwargs(trainer.args, model)
    rate = given.pop("lr")
    return create_loraplus_optimizer(
        model, kind, lr=rate, loraplus_lr_ratio=ratio, loraplus_weight_decay=trainer.args.weight_decay, **given
    )


def _projectors() -> list[type]:
    from apollo_torch.random_projector import GradientProjector
    from galore_torch.galore_projector import GaLoreProjector

    return [GaLoreProjector, GradientProjector]


def _metrics(trainer: Trainer, progress: ProgressCallback) -> dict[str, float]:
    """`final_loss` is the mean of the last ten steps; `tokens` and `steps` count earlier attempts too."""
    history: list[dict[str, Any]] = trainer.state.log_history
    losses = [float(entry["loss"]) for entry in history if "loss" in entry][-LOSS_WINDOW:]
    eval_losses = [float(entry["eval_loss"]) for entry in history if "eval_loss" in entry]
    found = {
        "final_loss": sum(losses) / len(losses) if losses else None,
        "eval_loss": eval_losses[-1] if eval_losses else None,
        "tokens": trainer.state.num_input_tokens_seen,
        "tokens_per_s": progress.tokens_per_s(trainer.state),
        "steps": trainer.state.global_step,
        "first_step_s": progress.first_step_s,
    }
    return {name: float(value) for name, value in found.items() if value is not None}
