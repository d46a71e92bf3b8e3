"""The trainer's callback: progress lines, sealed checkpoints, pause, cancel and divergence; knows no task."""

import math
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from services.trainer.recipes.distributed.distribution import agreed, wait
from services.trainer.recipes.job.checkpoints import seal
from services.trainer.recipes.job.environment import process_age_s
from services.trainer.recipes.job.failures import Diverged
from services.trainer.recipes.job.jobdir import JobDir


class ProgressCallback(TrainerCallback):
    """`stopped` says how training ended early: `paused`, `cancelled` or None.

    Of a process that does not lead it may also be `succeeded`: what follows training is for the leader.
    """

    def __init__(self, job: JobDir, log_every_steps: int = 1) -> None:
        self.stopped: str | None = None
        self.first_step_s: float | None = None
        self._job = job
        self._log_every = log_every_steps
        self._began = (0.0, 0)  # monotonic time and tokens when training began or resumed

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._began = (time.monotonic(), state.num_input_tokens_seen)
        self._job.report("phase", message="training", step=state.global_step, total_steps=state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.first_step_s is None:
            self.first_step_s = process_age_s()
        if state.global_step >= state.max_steps:
            # The weights themselves follow at once, and the trainer cannot resume from its own last step
            # without taking one more.
            control.should_save = False
            return
        command = agreed(self._job.command())
        if command is not None:
            self.stopped = {"pause": "paused", "cancel": "cancelled"}[command]
            control.should_save = command == "pause" and args.save_strategy != "no"
            control.should_evaluate = False
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any],
        **_: Any,
    ) -> None:
        for figure in ("loss", "grad_norm", "eval_loss"):
            if not math.isfinite(float(logs.get(figure, 0.0))):
                raise Diverged(
                    f"Training diverged at step {state.global_step}: {figure} is no longer a finite number; "
                    "lower learning_rate or set max_grad_norm."
                )
        if "eval_loss" in logs:
            self._job.report(
                "eval",
                step=state.global_step,
                total_steps=state.max_steps,
                epoch=state.epoch,
                loss=float(logs["eval_loss"]),
            )
        if "loss" not in logs:
            return
        if state.global_step % self._log_every == 0 or state.global_step == state.max_steps:
            self._job.report(
                "step",
                step=state.global_step,
                total_steps=state.max_steps,
                epoch=state.epoch,
                loss=float(logs["loss"]),
                learning_rate=logs.get("learning_rate"),
                grad_norm=float(logs.get("grad_norm", 0.0)),
                tokens=state.num_input_tokens_seen,
                tokens_per_s=self.tokens_per_s(state),
                reward=logs.get("reward"),  # of what it says itself, where a recipe learns from that
                kl=logs.get("kl"),
            )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        wait()  # every process has written its part
        if self._job.leads:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self._job.report("checkpoint", step=state.global_step, total_steps=state.max_steps)

    def tokens_per_s(self, state: TrainerState) -> float:
        """Tokens trained on per second since this process began to train."""
        began, tokens = self._began
        return (state.num_input_tokens_seen - tokens) / max(time.monotonic() - began, 1e-9)
