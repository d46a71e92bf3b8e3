"""How a trainer makes several steps on answers it drew once, and goes on amid them after a pause; knows no loss."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.utils import RepeatSampler

ROLLOUT = "rollout.pt"


class Shuffled(RepeatSampler):
    """trl's sampler, whose order in an epoch depends on the seed and the epoch alone: trl's own gives every resumed run
    the order of the first one.
    """

    def __init__(self, trainer: Trainer, rows: int, of_rollout: int, of_prompt: int, updates: int) -> None:
        """`of_rollout` prompts are answered `of_prompt` times each, and `updates` steps are made on that."""
        passes, seed = updates * trainer.args.gradient_accumulation_steps, trainer.args.data_seed
        super().__init__(range(rows), of_prompt, of_rollout, passes, seed=seed)
        self._trainer, self._steps_of_epoch = trainer, rows // of_rollout * updates

    def __iter__(self) -> Iterator[int]:
        epoch = self._trainer.state.global_step // self._steps_of_epoch
        self.generator.manual_seed(self.seed + epoch)
        yield from super().__iter__()


class KeepsRollout(TrainerCallback):
    """Lets a trainer that makes several steps on the same answers go on in the midst of them, from a checkpoint.

    The trainer counts its passes in `_step` and holds the answers in `_buffered_inputs`, as trl's do. `modules` are
    what else is trained and stands in no file of the model.
    """

    def __init__(self, trainer: Trainer, updates: int, checkpoint: Path | None, **modules: torch.nn.Module) -> None:
        self._trainer, self._updates, self._checkpoint, self._modules = trainer, updates, checkpoint, modules

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._trainer._step = state.global_step * args.gradient_accumulation_steps
        if self._checkpoint is None or not (file := self._checkpoint / ROLLOUT).is_file():
            return
        kept = torch.load(file, weights_only=True, map_location=args.device)
        if kept["inputs"] is not None:
            self._trainer._buffered_inputs = kept["inputs"]
        for name, module in self._modules.items():
            module.load_state_dict(kept[name])

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        kept: dict[str, Any] = {name: module.state_dict() for name, module in self._modules.items()}
        midst = state.global_step % self._updates
        kept["inputs"] = self._trainer._buffered_inputs if midst else None
        torch.save(kept, Path(args.output_dir) / f"checkpoint-{state.global_step}" / ROLLOUT)


def keep_rollout(trainer: Trainer, updates: int, checkpoint: Path | None, **modules: torch.nn.Module) -> None:
    """Before the other callbacks: what it leaves in a checkpoint must be there when that is sealed."""
    trainer.callback_handler.callbacks.insert(0, KeepsRollout(trainer, updates, checkpoint, **modules))
