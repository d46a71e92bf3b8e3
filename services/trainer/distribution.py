"""How a spec shares a job out among processes, and what of that cannot be done; pure, knows no torch and no service.

One host, one process a device. What stands here as possible was trained so and compared with one process
(tests/recipes/test_distribution.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.trainer.refusals import Asked

ZERO = {"zero1": 1, "zero2": 2, "zero3": 3}
#: What leaves no process with the whole of what it trains.
IN_SHARES = ("zero3", "fsdp")
SHARDINGS = ("ddp", *ZERO, "fsdp")
#: Recipes that train on several devices, and how weights were shared out where their losses were those of one.
RECIPES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("pretrain", "sft", "dpo", "orpo", "cpo", "simpo", "rm"), SHARDINGS),
    "kto": ("ddp", *ZERO),
    # accelerate 1.15 cuts the embeddings of an encoder twice for FSDP, and ends there.
    **dict.fromkeys(("embedding", "reranker", "sequence_classification", "token_classification"), ("ddp", *ZERO)),
}
#: Those whose loss is a sum over tokens, which sequences can be cut for.
TOKEN_BY_TOKEN = ("pretrain", "sft")
#: Optimizers that see each number alone; the others look at matrices, of which a share is something else.
NUMBER_BY_NUMBER = ("adamw",)
ALIKE_EVERYWHERE = ("adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor")
FIELD = "distribution"


@dataclass(frozen=True)
class Distribution:
    """The message of that name as it stands in JSON, sizes of 0 and absent ones as 1."""

    devices: int = 1
    nodes: int = 1
    #: ddp, zero1, zero2, zero3 or fsdp; empty where it is not said, which is ddp on several devices.
    sharding: str = ""
    offload_optimizer: bool = False
    offload_weights: bool = False
    tensor: int = 1
    pipeline: int = 1
    sequence: int = 1

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Distribution:
        """That of a spec's fields; one process where there is none."""
        said = parameters.get(FIELD) or {}
        size = {
            name: int(said.get(field) or 1)
            for name, field in {
                "devices": "devices",
                "nodes": "nodes",
                "tensor": "tensor_parallel_size",
                "pipeline": "pipeline_parallel_size",
                "sequence": "sequence_parallel_size",
            }.items()
        }
        word = str(said.get("sharding") or "").removeprefix("SHARDING_").lower()
        return cls(
            **size,
            sharding="" if word == "unspecified" else word,
            offload_optimizer=bool(said.get("offload_optimizer")),
            offload_weights=bool(said.get("offload_weights")),
        )

    @property
    def engine(self) -> str:
        """single, ddp, zero1, zero2, zero3, fsdp or tensor: how the devices hold a model between them."""
        if self.tensor > 1:
            return "tensor"
        return (self.sharding or "ddp") if self.devices > 1 else "single"

    @property
    def row_shares(self) -> int:
        """Devices, or groups of them, that have rows of their own."""
        return self.devices // (self.tensor * self.sequence)


def wrong(asked: Asked) -> Iterator[tuple[str, str]]:
    """The field of what cannot be done, and why not and what to do; nothing for one process."""
    told = asked.distribution
    if told == Distribution():
        return
    yield from _sizes(told, asked)
    yield from _methods(told, asked)
    if told.devices > 1 and asked.recipe:
        yield from _training(told, asked)


def _sizes(told: Distribution, asked: Asked) -> Iterator[tuple[str, str]]:
    if told.nodes > 1:
        yield (
            f"{FIELD}.nodes",
            f"is {told.nodes}, but a job runs on one host; set it to 1, and raise devices up to those of the host",
        )
    if told.pipeline > 1:
        yield (
            f"{FIELD}.pipeline_parallel_size",
            f"is {told.pipeline}, but the stages of transformers answer and do not train, DeepSpeed's take only models "
            "that were written for them, and torch's schedules are run by no trainer; leave it out, and take zero3, "
            "fsdp or tensor_parallel_size",
        )
    if asked.devices and told.devices > asked.devices:
        yield (
            f"{FIELD}.devices",
            f"is {told.devices}, but the pool has {asked.devices} ({asked.device}) for a job; lower it",
        )
    for size, field in ((told.tensor, "tensor_parallel_size"), (told.sequence, "sequence_parallel_size")):
        if told.devices % size:
            yield (
                f"{FIELD}.{field}",
                f"is {size}, which does not divide the {told.devices} devices; correct one of them",
            )
    if told.sharding and told.devices == 1:
        yield f"{FIELD}.sharding", f"is {told.sharding}, which needs 2 devices or more; raise devices, or leave it out"


def _methods(told: Distribution, asked: Asked) -> Iterator[tuple[str, str]]:
    if told.offload_optimizer and told.sharding not in ZERO:
        yield (
            f"{FIELD}.offload_optimizer",
            f"is asked for with {told.sharding or 'ddp'}, and it is DeepSpeed that does it; take zero1, zero2 or zero3",
        )
    if told.offload_weights and told.sharding != "zero3":
        yield (
            f"{FIELD}.offload_weights",
            f"is asked for with {told.sharding or 'ddp'}, which needs whole weights on each device; take zero3",
        )
    if told.tensor > 1 and (told.sharding or told.sequence > 1 or told.tensor != told.devices):
        yield (
            f"{FIELD}.tensor_parallel_size",
            f"is {told.tensor}, which is not combined with anything else here; set it to the {told.devices} devices "
            "and leave sharding and sequence_parallel_size out",
        )
    if told.devices > 1 and asked.device not in ("", "cpu", "cuda"):
        yield f"{FIELD}.devices", f"is {told.devices}, and on {asked.device} jobs run on one device; leave it out"


def _training(told: Distribution, asked: Asked) -> Iterator[tuple[str, str]]:
    if asked.recipe not in RECIPES:
        what = f"is {told.devices}, but {asked.recipe} is trained on one device by this version"
        yield f"{FIELD}.devices", f"{what}; those that are trained on several are {', '.join(RECIPES)}"
    elif (how := told.sharding or "ddp") not in RECIPES[asked.recipe]:
        what = f"is {how}, with which {asked.recipe} was not compared with one process"
        yield f"{FIELD}.sharding", f"{what}; take {' or '.join(RECIPES[asked.recipe])}"
    elif asked.tuner == "lora" and how in IN_SHARES and asked.recipe != "sft":
        what = f"is {how}, with which an adapter of {asked.recipe} was not compared with one process"
        yield f"{FIELD}.sharding", f"{what}; take ddp or zero1 or zero2"
    if asked.recipe == "embedding" and asked.own.get("mini_batch_size"):
        yield (
            "embedding.mini_batch_size",
            "is given, and its gradients are made in parts, each of which several devices would take for the whole; "
            "leave it out, as each device has its share of the rows, or leave distribution out",
        )
    if told.sequence > 1 and asked.recipe not in TOKEN_BY_TOKEN:
        yield (
            f"{FIELD}.sequence_parallel_size",
            f"is {told.sequence}, but the loss of {asked.recipe} takes whole answers, which no device would have; "
            "leave it out",
        )
    if told.tensor > 1 and asked.recipe not in TOKEN_BY_TOKEN:
        yield (
            f"{FIELD}.tensor_parallel_size",
            f"is {told.tensor}, which {asked.recipe} was not made for; take zero3 or fsdp",
        )
    if asked.tuner not in ("full", "lora") or asked.variant == "lora_plus":
        name = asked.variant or asked.tuner
        yield f"{FIELD}.devices", f"is {told.devices}, and {name} is trained on one device; take full or lora"
    if told.tensor > 1 and asked.tuner != "full":
        yield (
            f"{FIELD}.tensor_parallel_size",
            f"is {told.tensor}, but adapters have no plan for sharing their matrices; take the tuner full, or zero3",
        )
    if asked.quantization:
        yield (
            "lora.quantization",
            f"is {asked.quantization}, but on several devices the base is held in floats; leave it out, or devices",
        )
    known = ALIKE_EVERYWHERE if told.engine == "ddp" else NUMBER_BY_NUMBER
    if asked.optimizer not in known:
        yield (
            "optimization.optimizer",
            f"is {asked.optimizer}, and {told.engine} gives it shares of matrices or sums it knows nothing of; "
            f"take {', '.join(known)}",
        )
