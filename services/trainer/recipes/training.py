"""Runs a trainer to its end, from the newest whole checkpoint where there is one; knows no task."""

from typing import Any

from transformers import PrinterCallback, Trainer

from services.trainer.recipes.checkpoints import newest
from services.trainer.recipes.jobdir import JobDir
from services.trainer.recipes.progress import ProgressCallback

LOSS_WINDOW = 10


def train_or_resume(trainer: Trainer, job: JobDir, progress: ProgressCallback) -> dict[str, float]:
    """Train; returns the metrics so far. `progress.stopped` says whether it was paused or cancelled."""
    trainer.remove_callback(PrinterCallback)
    checkpoint = newest(job.checkpoints)
    if checkpoint is not None:
        job.report("phase", message=f"resuming from {checkpoint.name}")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return _metrics(trainer, progress)


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
