"""The bytes that the layers of a model keep for the backward pass, and what they take while it runs; knows no loss."""

from __future__ import annotations

import math

from services.trainer.plan.adapters import DEFAULT_RANK, chosen
from services.trainer.plan.architecture import Architecture
from services.trainer.plan.work import Work

#: Of all that the layers computed in blocks that malloc takes from its heap, the share that is free again and lies
#: between others, where nothing as large fits: while layers are computed, and when all gradients are there, which fill
#: much of it. glibc takes larger blocks singly (mallopt(3), M_MMAP_THRESHOLD) and gives them back.
SCATTERED, LEFT_OVER = 0.75, 0.45
OF_HEAP = 32 << 20
#: Bytes for each pair of tokens whose attention is dropped out in part: the share, what is left, and the mask; on
#: accelerators a kernel keeps none of it.
DROPPED = 12.0
#: Some tensors of a layer: how many, the numbers of a token in each, and the bytes of a number.
Tensors = tuple[int, int, int]


def activations(model: Architecture, work: Work) -> float:
    """Bytes kept for the backward pass: every layer's, or with checkpointing each layer's input."""
    if work.checkpoints_activations(model.parameters):
        return 4.0 * work.held_tokens * model.layers * model.hidden
    return model.layers * _of_layer(model, work)


def again(model: Architecture, work: Work) -> float:
    """Bytes that a layer's backward pass adds: what it computes again with checkpointing, and gradients within it."""
    product = 2.0 if work.bfloat16 else 4.0
    gradients = product * 2 * work.held_tokens * model.intermediate
    return gradients + (_of_layer(model, work) if work.checkpoints_activations(model.parameters) else 0.0)


def scattered(model: Architecture, work: Work) -> float:
    """Of a process on a CPU, bytes of its heap that are free and cannot be taken while layers are computed."""
    return SCATTERED * model.layers * _of_layer(model, work, OF_HEAP) if work.on_cpu else 0.0


def left_over(model: Architecture, work: Work) -> float:
    """Those when all gradients are there."""
    return scattered(model, work) * LEFT_OVER / SCATTERED


def _of_layer(model: Architecture, work: Work, below: float = math.inf) -> float:
    """Bytes of one layer, those of tensors that are smaller than ``below`` bytes.

    Counted on the tensors that torch keeps (tests/recipes/test_plan_counts.py).
    """
    tensors = _of_encoder(model, work) if model.encoder else _of_decoder(model, work)
    if work.asked.tuner in ("lora", "adalora", "vera"):
        rank = int(work.asked.of_tuner("rank")) or DEFAULT_RANK
        tensors.append(
            (len([each for each in chosen(model, work.asked) if each.count == model.layers]), rank, tensors[0][2])
        )
    tokens = work.held_tokens
    found = sum(count * width * size * tokens for count, width, size in tensors if width * size * tokens < below)
    dropped = DROPPED * work.held_rows * work.texts * model.dropped_heads * work.max_length**2
    return found + (dropped if work.on_cpu and dropped < 3 * below else 0.0)


def _of_decoder(model: Architecture, work: Work) -> list[Tensors]:
    """Norms and what is added up are float32, what is multiplied is as computed; frozen weights need fewer of them."""
    size, whole = (2 if work.bfloat16 else 4), work.asked.tuner == "full"
    normed = (2 if whole else 1) if model.kind == "qwen3" else 0  # queries and keys
    inputs = (5, model.hidden, 2) if work.bfloat16 else (2, model.hidden, 4)  # of matrices, in bfloat16 one of each
    return [
        (4, model.intermediate, size),
        (2 + work.joined, model.query, size),
        (2, model.key_value, size),
        (normed, model.query, 4),
        (normed, model.key_value, 4),
        (4 if whole else 2, model.hidden, 4),
        inputs,
    ]


def _of_encoder(model: Architecture, work: Work) -> list[Tensors]:
    """No gates and no rotation, and masks of dropout."""
    if work.bfloat16:
        return [(2, model.intermediate, 2), (7, model.hidden, 2), (5, model.hidden, 4)]
    return [(2, model.intermediate, 4), (10, model.hidden, 4)]
