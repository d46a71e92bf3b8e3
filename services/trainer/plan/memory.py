"""The most bytes that training holds at once, part by part; knows no device and no clock.

On CPUs the formula was fitted to measured peaks (docs/training.md); on accelerators it is arithmetic over what torch
keeps, which nobody has measured yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.trainer.plan.adapters import chosen, fixed, trained
from services.trainer.plan.architecture import Architecture
from services.trainer.plan.work import Sharding, Work

#: What a trainer takes beside tensors when it starts to work.
START = 90_000_000
#: A process after its imports; torch, transformers, peft and TRL on a CPU.
IMPORTS = 502_000_000
#: Copies of the logits that a loss holds at once: their log-softmax and the gradients of both.
LOGITS = 3
#: The same under bfloat16, which adds them as they came: 2 + 3 × 4 bytes, as floats of 4.
LOGITS_BFLOAT16 = 3.5
#: What stands beside the gradients when the last of them is made, as copies of the largest tensor.
GRADIENT = 2
#: The share of activations that are not kept but that malloc on a CPU does not give back before they are made again.
NOT_GIVEN_BACK = 0.4
#: What kept activations take on a CPU, blocks between them included.
BETWEEN = 1.2
#: Bytes of a quantized number: 4 bits and quantized constants of blocks of 64 (Dettmers et al. 2023, 3); int8.
QUANTIZED = {"nf4": 0.5 + 8 / 64 / 8 + 4 / (64 * 256), "int8": 1.0}
#: Bytes of state that optimizers keep for a number that is trained.
STATE = {"adamw": 8.0, "adamw_8bit": 2.0 + 8 / 256, "paged_adamw_8bit": 2.0 + 8 / 256, "lomo": 0.0}
RANKED = {"galore": 3, "apollo": 2}


@dataclass(frozen=True)
class Memory:
    """Bytes on one device when it holds most, above what the process had after its imports."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    other: int
    peak: int


def memory(model: Architecture, work: Work, sharding: Sharding = "single", devices: int = 1) -> Memory:
    """What one of ``devices`` holds. Raises UnplannableError for a tuner's modules that are not in the model."""
    trainable = trained(model, work.asked)
    shares = _shares(sharding, devices)
    # DeepSpeed and FSDP compute in bfloat16 and keep a copy in float32, where there is bfloat16.
    mixed = work.bfloat16 and sharding not in ("single", "ddp")
    weights = _weights(model, work, trainable, mixed) / shares["weights"]
    copies = 0.0 if mixed else _copies(model, work, trainable)
    gradients = (2 if mixed else 4) * trainable / shares["gradients"]
    state = (_state(model, work, trainable) + (4 * trainable if mixed else 0)) / shares["state"]
    kept, logits = activations(model, work), _logits(model, work)
    gathered = 2.0 * 2 * model.largest if shares["weights"] > 1 else 0.0  # this layer's and the next one's
    last = 4.0 * GRADIENT * model.largest if work.asked.tuner == "full" else 0.0
    if work.asked.optimizer == "lomo":
        gradients = 4.0 * model.largest
    forward = kept + logits + (gradients if work.accumulation > 1 else 0)
    backward = gradients + last / shares["state"]
    standing = START + weights + copies + state + gathered
    return Memory(
        weights=int(weights + copies + gathered),
        gradients=int(gradients),
        optimizer=int(state),
        activations=int(kept),
        logits=int(logits),
        other=START,
        peak=int(standing + max(forward, backward)),
    )


def _shares(sharding: Sharding, devices: int) -> dict[str, int]:
    """Into how many parts each kind of bytes is cut."""
    stage = {"zero1": 1, "zero2": 2, "zero3": 3, "fsdp": 3}.get(sharding, 0)
    parts = {"state": 1, "gradients": 2, "weights": 3}
    return {name: devices if stage >= least else 1 for name, least in parts.items()}


def _weights(model: Architecture, work: Work, trainable: int, mixed: bool) -> float:
    """Bytes of the base, the reference and the adapter, as the recipes hold them: float32, or quantized layers."""
    size = 2.0 if mixed else 4.0
    base = size * model.parameters
    if quantization := work.asked.quantization:
        rest = model.parameters - model.linear_weights
        base = size * rest + QUANTIZED[quantization] * model.linear_weights
    adapter = 0 if work.asked.tuner == "full" else size * (trainable + fixed(model, work.asked))
    return base * (2 if work.reference else 1) + adapter


def _copies(model: Architecture, work: Work, trainable: int) -> float:
    """Weights in another format while they are used: those of autocast in bfloat16, or a matrix made of its codes."""
    size = 2.0 if work.bfloat16 else 4.0
    if work.asked.quantization:
        return size * model.largest
    if not work.bfloat16:
        return 0.0
    if work.asked.tuner != "full" and work.checkpoints_activations(model.parameters):
        return size * model.multiplied / model.layers
    return size * model.multiplied


def _state(model: Architecture, work: Work, trainable: int) -> float:
    optimizer = work.asked.optimizer
    if optimizer in STATE:
        return STATE[optimizer] * trainable
    if work.asked.tuner != "full":  # adafactor: a row and a column of each of the adapter's thin matrices
        return 4.0 * trainable * (1 + 1 / 8)
    if optimizer == "adafactor":
        thin = sum((each.inputs + each.outputs) * each.count for each in model.linears)
        return 4.0 * (thin + model.vocabulary + model.hidden + model.norms)
    # Projected to a quarter of the width (recipes/optimization.py), the rest as AdamW holds it.
    rank = max(1, model.hidden // 4)
    small = sum(
        each.count
        * rank
        * (2 * max(each.inputs, each.outputs) + (RANKED[optimizer] - 2) * min(each.inputs, each.outputs))
        for each in model.linears
    )
    return 4.0 * small + 8.0 * (trainable - model.linear_weights)


def activations(model: Architecture, work: Work) -> float:
    """Bytes kept for the backward pass: every layer's, or with checkpointing each layer's input and one layer's all."""
    tokens = work.held_rows * work.texts * work.max_length
    one = tokens * _of_layer(model, work)
    one += 9.0 * work.held_rows * work.texts * model.dropped_heads * work.max_length**2
    if work.checkpoints_activations(model.parameters):
        lost = NOT_GIVEN_BACK * model.layers * one if work.asked.device == "cpu" else 0.0
        return 4.0 * tokens * model.layers * model.hidden + one + lost
    return model.layers * one * (BETWEEN if work.asked.device == "cpu" else 1.0)


def _of_layer(model: Architecture, work: Work) -> float:
    """Bytes of a token in one layer: norms and what is added up are float32, what is multiplied is as computed."""
    product = 2.0 if work.bfloat16 else 4.0
    between = product * (5 * model.query + 5 * model.key_value + 4 * model.intermediate)
    whole = 4.0 * (8 * model.hidden + model.query)
    if model.encoder:  # no gate, no rotation, masks of dropout
        between = product * (2 * model.query + 2 * model.key_value + 2 * model.intermediate)
        whole = 4.0 * 8 * model.hidden
    if work.asked.tuner in ("lora", "adalora", "vera"):
        rank = int(work.asked.of_tuner("rank")) or 16
        between += product * rank * len([each for each in chosen(model, work.asked) if each.count > 1])
    return between + whole + (product * 2 * model.hidden if work.bfloat16 else 0.0)


def _logits(model: Architecture, work: Work) -> float:
    if model.head_kind != "tokens":
        return 0.0
    return 4.0 * work.tokens * model.vocabulary * (LOGITS_BFLOAT16 if work.bfloat16 else LOGITS)


def host_memory(model: Architecture, work: Work, peak: int) -> int:
    """Bytes of a whole process on its host: on a CPU everything; before an accelerator the weights as they are loaded.

    A base that is quantized while it is loaded passes through the host as it is stored, at 2 bytes a number or more.
    """
    if work.asked.device == "cpu":
        return IMPORTS + peak
    return IMPORTS + START + (2 if work.asked.quantization else 4) * model.parameters
