"""The most bytes that training holds at once, part by part; knows no device and no clock.

Counted on the tensors that torch keeps (tests/recipes/test_plan_counts.py). On CPUs a share for the heap was measured
(benchmarks/planner.py); on accelerators nobody has measured yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.trainer.distribution import ZERO
from services.trainer.plan.adapters import fixed, trained
from services.trainer.plan.architecture import Architecture
from services.trainer.plan.layers import activations, again, left_over, scattered
from services.trainer.plan.losses import Held, held
from services.trainer.plan.rollouts import rollout
from services.trainer.plan.sight import seeing
from services.trainer.plan.work import Sharding, Work

#: What a trainer takes beside tensors when it starts to work.
START = 90_000_000
#: A process after its imports; torch, transformers, peft and TRL on a CPU.
IMPORTS = 502_000_000
#: Copies of the largest tensor that optimizers make while they update it; AdamW has none.
UPDATING = 2
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
    #: While answers are drawn; 0 where none are.
    drawn: int
    #: Of the weights, those of frozen models beside the base.
    beside: int
    other: int
    peak: int
    #: When that is, in words.
    moment: str
    #: What offloading leaves in the host's memory in place of the device's.
    on_host: int = 0


def memory(model: Architecture, work: Work, sharding: Sharding = "single", devices: int = 1) -> Memory:
    """What one of ``devices`` holds. Raises UnplannableError for a tuner's modules that are not in the model."""
    trainable = trained(model, work.asked)
    shares = _shares(sharding, devices)
    # DeepSpeed and FSDP compute in bfloat16 and keep a copy in float32, where there is bfloat16.
    mixed = work.bfloat16 and sharding not in ("single", "ddp")
    beside = _beside(model, work)
    weights = _weights(model, work, trainable, mixed) / shares["weights"] + beside
    copies = 0.0 if mixed else _copies(model, work, trainable)
    copies += 2.0 * 2 * model.largest if shares["weights"] > 1 else 0.0  # this layer's and the next one's are gathered
    gradients = (2 if mixed else 4) * trainable / shares["gradients"]
    gradients = 4.0 * model.largest if work.asked.optimizer == "lomo" else gradients
    buckets = 4.0 * trainable if sharding == "ddp" else 0.0  # in which they are summed up
    state = _of_optimizer(model, work, trainable, mixed or sharding in ZERO) / shares["state"]
    shared = work.asked.distribution
    lying, moments = 0.0 if shared.offload_weights else weights, 0.0 if shared.offload_optimizer else state
    loss, drawn = _loss(model, work, sharding), rollout(model, work)
    kept, made = activations(model, work) + seeing(model, work), again(model, work)
    moment, most = _most(model, work, loss, kept, made, gradients, shares["state"])
    return Memory(
        weights=int(lying + copies),
        gradients=int(gradients + buckets),
        optimizer=int(moments),
        activations=int(kept + made),
        logits=int(max(loss.forward, loss.backward)),
        drawn=int(drawn),
        beside=int(beside),
        other=START,
        peak=int(START + lying + copies + moments + buckets + max(most, drawn)),
        moment="answers are drawn" if drawn > most else moment,
        on_host=int(weights - lying + state - moments),
    )


def _most(
    model: Architecture, work: Work, loss: Held, kept: float, made: float, gradients: float, shares: int
) -> tuple[str, float]:
    """The moment of a step when it holds most beside what stands from one to the next, and how much that is."""
    whole = work.asked.tuner == "full"
    sum_so_far = gradients if work.accumulation > 1 else 0.0
    lost = scattered(model, work)
    # An embedding that is the head too gets two gradients, which are added up in the end.
    twice = 4.0 * model.vocabulary * model.hidden if whole and model.tied else 0.0
    updating = 0.0 if work.asked.optimizer in ("adamw", "lomo") or not whole else 4.0 * UPDATING * model.largest
    moments = {
        "the loss is computed": kept + lost + loss.forward + sum_so_far,
        "the gradient of the loss is made": kept + lost + loss.backward + sum_so_far,
        "gradients of the layers are made": kept + lost + made + loss.gradient + sum_so_far,
        "the last gradients are made": gradients + twice + left_over(model, work),
        "the weights are updated": gradients + updating / shares + left_over(model, work),
    }
    return max(moments.items(), key=lambda each: each[1])


def _shares(sharding: Sharding, devices: int) -> dict[str, int]:
    """Into how many parts each kind of bytes is cut."""
    stage = {"zero1": 1, "zero2": 2, "zero3": 3, "fsdp": 3}.get(sharding, 0)
    parts = {"state": 1, "gradients": 2, "weights": 3}
    return {name: devices if stage >= least else 1 for name, least in parts.items()}


def _weights(model: Architecture, work: Work, trainable: int, mixed: bool) -> float:
    """Bytes of the base and the adapter, as the recipes hold them: float32, or quantized layers."""
    size = 2.0 if mixed else 4.0
    base = size * model.parameters
    if quantization := work.asked.quantization:
        rest = model.parameters - model.linear_weights
        base = size * rest + QUANTIZED[quantization] * model.linear_weights
    return base + (0 if work.asked.tuner == "full" else size * (trainable + fixed(model, work.asked)))


def _beside(model: Architecture, work: Work) -> float:
    """Bytes of the frozen models, which are float32: a reference, a teacher, a reward model."""
    return 4.0 * (sum(other.parameters for other in work.beside.values()) + work.reference * model.parameters)


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


def _of_optimizer(model: Architecture, work: Work, trainable: int, master: bool) -> float:
    """Bytes of its state, with the float32 copy of the weights that some engines update."""
    return _state(model, work, trainable) + (4.0 * trainable if master else 0.0)


def _state(model: Architecture, work: Work, trainable: int) -> float:
    optimizer = work.asked.optimizer
    if optimizer in STATE:
        return STATE[optimizer] * trainable
    if work.asked.tuner != "full":  # adafactor: a row and a column of each of the adapter's thin matrices
        return 4.0 * trainable * (1 + 1 / 8)
    if optimizer == "adafactor":
        thin = sum((each.inputs + each.outputs) * each.count for each in model.linears)
        return 4.0 * (thin + model.vocabulary + model.hidden + model.norms)
    # Projected to a quarter of the width (recipes/learning/optimization.py), the rest as AdamW holds it.
    rank = max(1, model.hidden // 4)
    small = sum(
        each.count
        * rank
        * (2 * max(each.inputs, each.outputs) + (RANKED[optimizer] - 2) * min(each.inputs, each.outputs))
        for each in model.linears
    )
    return 4.0 * small + 8.0 * (trainable - model.linear_weights)


def _loss(model: Architecture, work: Work, sharding: Sharding) -> Held:
    length = work.new_tokens if work.loss(sharding) == "proximal" else work.max_length
    return held(
        work.loss(sharding) if model.head_kind == "tokens" else "none",
        model,
        -(-work.held_rows * work.texts * length // work.asked.distribution.sequence),
        trained=work.asked.tuner == "full",
        bfloat16=work.bfloat16,
        on_cpu=work.on_cpu,
        chunk=work.asked.performance.loss_chunk_tokens,
    )


def host_memory(model: Architecture, work: Work, held: Memory) -> int:
    """Bytes of a whole process on its host: on a CPU everything; before an accelerator the weights as they are loaded.

    A base that is quantized while it is loaded passes through the host as it is stored, at 2 bytes a number or more.
    """
    if work.on_cpu:
        return IMPORTS + held.peak + held.on_host
    loaded = (2 if work.asked.quantization else 4) * model.parameters
    return IMPORTS + START + max(held.on_host, loaded, *(4 * each.parameters for each in work.beside.values()))
