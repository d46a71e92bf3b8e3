"""The bytes that a loss holds beside what is kept for the backward pass; knows no recipe and no device's size.

Copies were counted on torch's tensors (torch 2.13, transformers 5.19, TRL 1.16), with every temporary that is alive at
the same time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from services.trainer.plan.architecture import Architecture

#: How logits become a loss: a chunk after the other (recipes/learning/token_loss.py), in TRL's tiles, or all at once:
#: by the model itself, for odds of pairs (TRL's ORPO and CPO), for the divergence of two models (TRL's GKD), or by the
#: clipped objective (recipes/ppo.py). `none`: a head of classes or vectors, whose values are few.
Loss = Literal["chunks", "tiles", "own", "pairs", "divergence", "proximal", "none"]
#: Copies of all logits at the most: when the loss is there, and when their gradient is made.
COPIES = {"own": (2.0, 3.0), "pairs": (1.5, 4.5), "divergence": (17.0, 12.0), "proximal": (3.0, 3.0)}
#: As in recipes/learning/token_loss.py.
CHUNK_LOGITS, MOST_TOKENS, LEAST_TOKENS = 1 << 24, 4096, 128
#: A chunk's logits and what their logarithmic sum makes of them.
CHUNK_COPIES = 2
#: Tokens and numbers of the vocabulary in a tile (trl/kernels/chunked_logprob.py).
TILE_TOKENS, TILE_WIDTH = 4096, 32_768
#: Copies of a tile where torch computes it, forward and backward; a kernel of Triton has the tile alone.
TILE_COPIES = (4.0, 8.25)


@dataclass(frozen=True)
class Held:
    """Bytes at the most while a loss is computed, and while the gradients of the head's inputs and weights are made."""

    forward: float = 0.0
    backward: float = 0.0
    #: Of the head's weights, which stays when the layers' turn comes.
    gradient: float = 0.0


def held(
    loss: Loss, model: Architecture, tokens: int, *, trained: bool, bfloat16: bool, on_cpu: bool, chunk: int = 0
) -> Held:
    """What ``loss`` over so many tokens holds; ``trained``: the head's weights too; ``chunk``: the tokens of one."""
    if loss == "none":
        return Held()
    gradient = 4.0 * model.vocabulary * model.hidden if trained else 0.0
    cast = 2.0 if bfloat16 else 0.0  # of what is multiplied, beside the floats that it is added up in
    if loss == "chunks":
        # Made with the loss: gradients of the inputs and the weights; then each once more, times the loss's own.
        inputs = 4.0 * 2 * tokens * model.hidden
        logits = min(tokens, chunk or usual_chunk(model.vocabulary)) * model.vocabulary * (4.0 * CHUNK_COPIES + cast)
        copied = cast * model.vocabulary * model.hidden
        return Held(logits + inputs + gradient + copied, 1.5 * inputs + 2 * gradient, gradient)
    if loss == "tiles":
        inputs = 4.0 * tokens * model.hidden
        tile = min(tokens, TILE_TOKENS) * min(model.vocabulary, TILE_WIDTH)
        forward, backward = (4.0 * copies * tile if on_cpu else (cast or 4.0) * tile for copies in TILE_COPIES)
        return Held(forward + inputs, backward + 2 * inputs + gradient, gradient)
    forward, backward = COPIES[loss]
    logits = float(tokens * model.vocabulary)
    return Held((4 * forward + cast) * logits, (4 * backward + cast) * logits + gradient, gradient)


def usual_chunk(vocabulary: int) -> int:
    """Tokens of a chunk where a spec does not tell."""
    return min(MOST_TOKENS, max(LEAST_TOKENS, CHUNK_LOGITS // vocabulary))
