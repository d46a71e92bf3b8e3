"""The bytes of answers that a model draws itself before it learns from them; knows no loss and no weights."""

from __future__ import annotations

from services.trainer.plan.architecture import Architecture
from services.trainer.plan.work import Work

#: Copies of the values of a next token while one is drawn: as they come, as floats, without what is not wanted, and as
#: probabilities.
DRAWN_COPIES = 4
#: As in recipes/models/encoders.py: conversations that a reward model reads together.
SCORED_TOGETHER = 32


def rollout(model: Architecture, work: Work) -> float:
    """At the most while answers are drawn and looked at, when nothing is kept for a backward pass; 0 where none are."""
    rows, length = work.drawn_rows, work.max_length
    if not rows:
        return 0.0
    asked = rows * max(1, length - work.new_tokens)
    of_layer = 4.0 * 2 * rows * length * model.key_value
    cache = of_layer * (model.layers + 1)  # the longer one of a layer is made while the shorter one is there
    drawing = cache + max(passing(model, asked), 4.0 * DRAWN_COPIES * rows * model.vocabulary)
    return max(drawing, *_looked_at(model, work, rows * length))


def _looked_at(model: Architecture, work: Work, tokens: int) -> list[float]:
    """What is computed of whole answers afterwards; by ppo of all at once, with what every layer gave."""
    found = [0.0]
    if work.method.loss == "proximal":
        logits = 4.0 * 3 * work.drawn_rows * work.new_tokens * model.vocabulary
        layers = 4.0 * (model.layers + 1) * tokens * model.hidden
        found.append(layers + max(logits, passing(model, tokens)))
    if reward := work.beside.get("reward"):
        found.append(passing(reward, min(work.drawn_rows, SCORED_TOGETHER) * work.max_length))
    return found


def passing(model: Architecture, tokens: int) -> float:
    """Of a pass forward from which nothing is learned: the widest part of one layer, and what goes around it."""
    return 4.0 * tokens * (3 * model.intermediate + 3 * model.hidden)
