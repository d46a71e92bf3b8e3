"""The trainer's callback that gives AdaLoRA's ranks to where they are needed; knows no task.

peft leaves the call to the loop, the number of steps to the user, and what it has learned out of a checkpoint.
"""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from services.trainer.recipes.job.failures import BadInput
from services.trainer.refusals import LEAST_ADALORA_STEPS

FILE = "rank_allocation.safetensors"


class RankAllocation(TrainerCallback):
    """A tenth of the steps with all ranks, then ever fewer, the last three tenths with those that are left.

    The shares are about those of Zhang et al. 2023 (arXiv:2303.10512, table 8).
    """

    def __init__(self, model: PeftModel, checkpoint: Path | None) -> None:
        """Takes the checkpoint that training goes on from."""
        self._tuner = model.base_model
        self._config = model.peft_config["default"]
        self._allocator = self._tuner.rankallocator
        self._checkpoint = checkpoint
        self._kept: dict[str, list[bool]] | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any):
        steps = state.max_steps
        if steps < LEAST_ADALORA_STEPS:
            raise BadInput(
                f"adalora needs {LEAST_ADALORA_STEPS} updates to give out its rank and would get {steps}; "
                "raise max_steps or epochs, or take lora."
            )
        self._config.total_step, self._config.tinit, self._config.tfinal = steps, steps // 10, steps * 3 // 10
        self._config.deltaT = max(1, steps // 100)
        if self._checkpoint is not None:
            self._restore(load_file(self._checkpoint / FILE))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._config.rank_pattern = self._kept
        self._tuner.update_and_allocate(state.global_step)
        # Where peft finds a pattern it cuts the ranks out of what it saves, and a checkpoint would fit no more.
        self._kept, self._config.rank_pattern = self._config.rank_pattern, None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any):
        found = {f"importance/{k}": v for k, v in self._allocator.exp_avg_ipt.items()}
        found |= {f"uncertainty/{k}": v for k, v in self._allocator.exp_avg_unc.items()}
        found |= {f"kept/{k}": torch.tensor(v) for k, v in (self._kept or {}).items()}
        save_file(found, Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE)

    def _restore(self, found: dict[str, torch.Tensor]) -> None:
        parts: dict[str, dict[str, torch.Tensor]] = {"importance": {}, "uncertainty": {}, "kept": {}}
        for name, tensor in found.items():
            part, _, key = name.partition("/")
            parts[part][key] = tensor
        device = next(self._tuner.parameters()).device
        self._allocator.exp_avg_ipt = {k: v.to(device) for k, v in parts["importance"].items()}
        self._allocator.exp_avg_unc = {k: v.to(device) for k, v in parts["uncertainty"].items()}
        self._allocator.ipt = {k: torch.zeros_like(v) for k, v in self._allocator.exp_avg_ipt.items()}
        self._kept = {k: v.tolist() for k, v in parts["kept"].items()} or None
