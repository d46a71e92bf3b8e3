"""What each process of a recipe held after its first update, and whether that is what was asked; knows no task.

transformers and accelerate put something else in place of what they cannot do and say nothing, so the engines
themselves are asked.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn import Linear
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from services.trainer.distribution import ZERO, Distribution
from services.trainer.recipes.distributed.distribution import gathered
from services.trainer.recipes.distributed.ranks import own_rank
from services.trainer.recipes.distributed.sequences import Parts
from services.trainer.recipes.distributed.whole import count, held
from services.trainer.recipes.job.failures import RecipeError
from services.trainer.recipes.job.jobdir import JobDir

#: What a share of a small tensor may be larger than its part.
FILLED = 64
#: Numbers that AdamW keeps for one that it trains; other optimizers are not shared out.
MOMENTS = 2


@dataclass(frozen=True)
class Held:
    """As `RankHeld` of the contract."""

    rank: int
    process_id: int
    engine: str
    device: str
    zero_stage: int
    model_weights: int
    weights: int
    gradients: int
    optimizer_states: int
    optimizer_device: str
    sequence_length: int
    row_length: int
    first_batch: str


class Witness(TrainerCallback):
    """Puts into `job.ranks` what was held; raises RecipeError on all processes where that is not what was asked."""

    def __init__(self, trainer: Trainer, asked: Distribution, job: JobDir, parts: Parts | None) -> None:
        self._trainer, self._asked, self._job, self._parts = trainer, asked, job, parts
        trained = [weight for weight in trainer.model.parameters() if weight.requires_grad]
        self._whole = count(trainer.model)
        self._trained = sum(weight.numel() for weight in trained)
        self._spare = _spare(trained)
        self._spare_whole = _spare(list(trainer.model.parameters()))
        self._gradients: dict[int, int] = {}
        self._first: torch.Tensor | None = None
        self._row_length = 0
        self._hooks = [
            register_optimizer_step_pre_hook(self._count),
            trainer.model.get_input_embeddings().register_forward_pre_hook(self._see),
        ]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not self._hooks:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        ranks = gathered(self._held(args))
        self._job.ranks.extend(map(asdict, ranks))
        self._check(ranks)

    def _see(self, module: torch.nn.Module, given: tuple[Any, ...]) -> None:
        if self._first is None and module.training:
            self._first = given[0].detach().cpu()
            self._row_length = self._parts.first if self._parts else self._first.shape[1]

    def _count(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        for weight in (*weights, *self._trainer.model.parameters()):
            if weight.grad is not None:
                self._gradients[id(weight)] = held(weight.grad)

    def _held(self, args: TrainingArguments) -> Held:
        engine = self._trainer.model_wrapped
        states = _states(self._trainer.optimizer)
        seen = self._first if self._first is not None else torch.zeros(1, 0, dtype=torch.long)
        return Held(
            rank=own_rank(),
            process_id=os.getpid(),
            engine=type(engine).__name__,
            device=str(args.device),
            zero_stage=engine.zero_optimization_stage() if hasattr(engine, "zero_optimization_stage") else 0,
            model_weights=self._whole,
            weights=sum(map(held, self._trainer.model.parameters())),
            gradients=sum(self._gradients.values()),
            optimizer_states=sum(map(held, states)),
            optimizer_device=", ".join(sorted({str(each.device) for each in states})),
            sequence_length=seen.shape[1],
            row_length=self._row_length,
            first_batch="sha256:" + hashlib.sha256(seen.numpy().tobytes()).hexdigest(),
        )

    def _check(self, ranks: list[Held]) -> None:
        asked, engine = self._asked, self._trainer.model_wrapped
        wrong = [*self._wrong(ranks[own_rank()]), *([] if _is(engine, asked, self._trainer) else ["engine"])]
        if asked.row_shares == asked.devices and not have_own_rows(ranks, self._trainer.train_dataset):
            wrong.append("share of rows")
        for each, what in zip(ranks, gathered(wrong), strict=True):
            if what:
                raise RecipeError(
                    f"The spec asks for {asked.engine} on {asked.devices} devices, but process {each.rank} trained "
                    f"{each.weights} of {each.model_weights} weights in {each.engine}: its {what[0]} is not as asked."
                )

    def _wrong(self, found: Held) -> list[str]:
        """Of what a process held more than its share, or saw more of its rows than it should."""
        asked = self._asked
        share = 1 / asked.devices
        stage = ZERO.get(asked.sharding, 0) if asked.tensor == 1 else 0
        in_shares = 3 if asked.engine in ("fsdp", "tensor") else stage
        most_states = MOMENTS * (self._trained * share + self._spare)
        rules = {
            "sequence length": found.sequence_length * asked.sequence == found.row_length,
            "stage of ZeRO": found.zero_stage == stage,
            "optimizer's state": in_shares == 0 or asked.tensor > 1 or 0 < found.optimizer_states <= most_states,
            "place of the optimizer's state": not asked.offload_optimizer or found.optimizer_device == "cpu",
            "share of gradients": in_shares < 2
            or asked.tensor > 1
            or 0 < found.gradients <= self._trained * share + self._spare,
            "share of weights": in_shares < 3
            or asked.tensor > 1
            or found.weights <= self._whole * share + self._spare_whole,
            "share of matrices": asked.tensor == 1 or found.weights < self._whole,
            "whole model": in_shares == 3 or found.weights == self._whole,
        }
        return [name for name, holds in rules.items() if not holds]


def have_own_rows(ranks: list[Held], rows: Iterable[Any]) -> bool:
    """Whether no two processes began with the same batch, which they may only where `rows` repeat themselves."""
    if len({each.first_batch for each in ranks}) == len(ranks):
        return True
    told = list(map(str, rows))
    return len(set(told)) < len(told)


def _spare(weights: list[torch.nn.Parameter]) -> int:
    """What a share of all may be larger than its part: engines fill tensors up to round numbers, or to whole rows."""
    return sum(max(FILLED, weight.numel() // (weight.shape[0] if weight.dim() else 1)) for weight in weights)


def _is(engine: Any, asked: Distribution, trainer: Trainer) -> bool:
    """Whether the engine itself is the one that was asked for."""
    if asked.engine in ZERO:
        offloads = (bool(engine.zero_cpu_offload()), bool(engine.zero_offload_param()))
        return type(engine).__name__ == "DeepSpeedEngine" and offloads == (
            asked.offload_optimizer,
            asked.offload_weights,
        )
    if asked.engine == "fsdp":
        return isinstance(engine, FSDPModule)
    if asked.engine == "tensor":
        layers = trainer.model.get_decoder().layers
        matrices = [module.weight for module in layers.modules() if isinstance(module, Linear)]
        return all(isinstance(each, DTensor) and any(p.is_shard() for p in each.placements) for each in matrices)
    return isinstance(engine, DistributedDataParallel)


def _states(optimizer: Any) -> list[torch.Tensor]:
    """What the innermost optimizer keeps, counts of steps left out."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return [
        each for state in optimizer.state.values() for each in state.values() if torch.is_tensor(each) and each.dim()
    ]
