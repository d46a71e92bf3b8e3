"""How long a step takes and what lies on the disk; of speeds it knows only what it is told."""

from __future__ import annotations

from dataclasses import dataclass

from services.trainer.plan.architecture import Architecture
from services.trainer.plan.memory import memory
from services.trainer.plan.work import Work

#: Checkpoints that recipes keep (`save_total_limit`), and the one that is being written.
CHECKPOINTS = 3


@dataclass(frozen=True)
class Disk:
    """Bytes in the job's folder: what is staged, one checkpoint, what the job leaves, and all at its most."""

    staged: int
    checkpoint: int
    output: int

    @property
    def most(self) -> int:
        """Everything at once."""
        return self.staged + CHECKPOINTS * self.checkpoint + self.output


def flops(model: Architecture, work: Work) -> float:
    """Operations of one update on one device (Kaplan et al. 2020, arXiv:2001.08361, 2.1; attention not halved).

    Frozen weights need no gradients of their own; checkpointing is one more pass forward, and so are the drawing of
    answers, a reference, and each frozen model with its own weights.
    """
    passes = 3 if work.asked.tuner == "full" else 2
    passes += 1 if work.checkpoints_activations(model.parameters) else 0
    passes += work.method.more_passes + (1 if work.new_tokens else 0)
    each = flops_per_token(model, work.max_length, passes)
    each += sum(flops_per_token(other, work.max_length, 1) for other in work.beside.values())
    if sight := model.sight:  # frozen, or as much as the layers
        of_tower = 2.0 * sight.patches * sum(linear.weights for linear in sight.linears)
        each += of_tower * (passes if work.asked.own.get("train_vision_tower") else 1)
    return work.tokens * each * work.accumulation / work.asked.distribution.sequence


def flops_per_token(model: Architecture, length: float, passes: int) -> float:
    """Operations of one token of a row of ``length``; a pass is one forward, or as much as one."""
    attention = 2.0 * model.layers * length * model.query
    return 2.0 * (model.multiplied + attention) * passes


def disk(model: Architecture, work: Work, trainable: int, staged: int) -> Disk:
    """What a job writes, ``staged`` bytes of its base beside; weights are saved as float32."""
    held = memory(model, work)
    saved = model.parameters if work.asked.tuner == "full" else trainable
    plain = work.asked.tuner == "lora" and work.asked.variant in ("", "rslora", "lora_plus")
    adapter = plain and model.head_kind == "tokens"
    return Disk(staged, 4 * saved + held.optimizer, 4 * (trainable if adapter else model.parameters))
