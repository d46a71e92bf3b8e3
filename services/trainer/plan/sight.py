"""The bytes that looking at images takes, at the most that rows of a length can show; knows no pixels."""

from __future__ import annotations

from services.trainer.plan.architecture import Architecture
from services.trainer.plan.work import Work


def seeing(model: Architecture, work: Work) -> float:
    """What is kept of the vision tower, every token of a row being one of an image.

    A frozen one keeps nothing: what one of its blocks takes while it passes counts, and what goes to the layers.
    """
    sight = model.sight
    if sight is None:
        return 0.0
    patches = work.held_tokens * sight.patches
    product = 2.0 if work.bfloat16 else 4.0
    block = patches * (product * (7 * sight.width + sight.matrices * sight.inner) + 4.0 * 4 * sight.width)
    if not work.asked.own.get("train_vision_tower"):
        return block
    if work.checkpoints_activations(model.parameters):
        return 4.0 * patches * sight.blocks * sight.width + block
    return sight.blocks * block
