"""What a spec says of speed and memory, and what of that a recipe or its hardware cannot do; pure, knows no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.trainer.refusals import Asked

FIELD = "performance"
#: Recipes whose rows can be one sequence and stay apart: those that end in a loss of each token.
JOINING = ("pretrain", "sft")
#: Recipes that take rows of many lengths into one batch, one sequence a row.
BUCKETING = (
    *("sft", "dpo", "orpo", "cpo", "simpo", "rm"),
    *("reranker", "sequence_classification", "token_classification"),
)
UNBUCKETED = {
    "pretrain": "fills blocks of one length",
    "kto": "compares each row with the one before it in its batch",
    "embedding": "takes the other rows of a batch as negatives, which rows of one length are not by chance",
}
#: Weights are patched, or attention computed, by code that NVIDIA's GPUs alone can run.
FLASH = ("flash_attention_2", "flash_attention_3")


@dataclass(frozen=True)
class Performance:
    """The message of that name as it stands in JSON; None where the recipe decides."""

    packing: bool | None = None
    padding_free: bool | None = None
    group_by_length: bool | None = None
    gradient_checkpointing: bool | None = None
    #: sdpa, eager, flash_attention_2, flash_attention_3, or empty.
    attn_implementation: str = ""
    loss_chunk_tokens: int = 0
    use_liger_kernel: bool = False
    torch_compile: bool = False
    dataloader_num_workers: int = 0
    dataloader_pin_memory: bool | None = None

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Performance:
        """That of a spec's fields."""
        said = dict(parameters.get(FIELD) or {})
        word = str(said.pop("attn_implementation", "") or "").removeprefix("ATTN_IMPLEMENTATION_").lower()
        known = {name: said[name] for name in cls.__dataclass_fields__ if said.get(name) is not None}
        return cls(**known, attn_implementation="" if word == "unspecified" else word)


def wrong(asked: Asked) -> Iterator[tuple[str, str]]:
    """The field of what cannot be done, and why not and what to do; nothing where nothing is asked for."""
    told = asked.performance
    if told == Performance():
        return
    yield from _by_recipe(told, asked)
    if asked.device not in ("", "cuda"):
        yield from _by_device(told, asked)


def _by_recipe(told: Performance, asked: Asked) -> Iterator[tuple[str, str]]:
    for name in ("packing", "padding_free"):
        if getattr(told, name) and asked.recipe and asked.recipe not in JOINING:
            yield (
                f"{FIELD}.{name}",
                f"is asked for, but {asked.recipe} needs each row as a sequence of its own; leave it out",
            )
    if told.group_by_length and asked.recipe and asked.recipe not in BUCKETING:
        why = UNBUCKETED.get(asked.recipe, "makes its batches another way")
        yield f"{FIELD}.group_by_length", f"is asked for, but {asked.recipe} {why}; leave it out"
    if told.packing and told.padding_free is False:
        yield (
            f"{FIELD}.padding_free",
            "is false, but rows that are packed are one sequence; leave it out, or leave packing out",
        )
    if told.packing and told.group_by_length:
        yield (
            f"{FIELD}.group_by_length",
            "is asked for with packing, whose sequences are all full; leave one of them out",
        )
    if (told.packing or told.padding_free) and (asked.distribution.sequence > 1 or asked.distribution.tensor > 1):
        name = "packing" if told.packing else "padding_free"
        yield (
            f"{FIELD}.{name}",
            "is asked for with sequence_parallel_size or tensor_parallel_size, which take rows one by one; "
            "leave one of them out",
        )
    if told.dataloader_num_workers and asked.distribution.sequence > 1:
        yield (
            f"{FIELD}.dataloader_num_workers",
            "is given with sequence_parallel_size, whose processes cut their batches themselves; leave one of them out",
        )
    if (told.packing or told.padding_free) and told.attn_implementation == "eager":
        yield f"{FIELD}.attn_implementation", "is eager, which would not keep joined rows apart; take sdpa"
    if told.loss_chunk_tokens and asked.recipe and asked.recipe not in JOINING:
        yield f"{FIELD}.loss_chunk_tokens", f"is given, but the loss of {asked.recipe} is another's; leave it out"
    if told.attn_implementation and asked.recipe and asked.recipe not in JOINING:
        yield f"{FIELD}.attn_implementation", f"is given, but {asked.recipe} takes that of its model; leave it out"


def _by_device(told: Performance, asked: Asked) -> Iterator[tuple[str, str]]:
    if told.attn_implementation in FLASH:
        yield (
            f"{FIELD}.attn_implementation",
            f"is {told.attn_implementation}, which was written for NVIDIA's GPUs, and the pool computes on "
            f"{asked.device}; take sdpa",
        )
    if told.use_liger_kernel:
        yield (
            f"{FIELD}.use_liger_kernel",
            f"is asked for, but Liger's kernels are Triton programs for GPUs, and the pool computes on {asked.device}; "
            "leave it out",
        )
    if told.torch_compile:
        yield (
            f"{FIELD}.torch_compile",
            f"is asked for, but it was only ever meant for GPUs here, and the pool computes on {asked.device}; "
            "leave it out",
        )
    if told.dataloader_pin_memory:
        yield (
            f"{FIELD}.dataloader_pin_memory",
            f"is asked for, but pinned memory is what a GPU of NVIDIA copies from, and the pool computes on "
            f"{asked.device}; leave it out",
        )
