"""What a spec may ask of speed: refused where the recipe or the hardware cannot, with the field and the fix."""

from typing import Any

import pytest

from services.trainer.performance import Performance
from services.trainer.refusals import Asked, refusals

FLASH = "ATTN_IMPLEMENTATION_FLASH_ATTENTION_2"


@pytest.mark.parametrize(
    ("recipe", "told", "device", "sentence"),
    [
        (
            "sft",
            {"attn_implementation": FLASH},
            "cpu",
            "performance.attn_implementation is flash_attention_2, which was",
        ),
        (
            "sft",
            {"use_liger_kernel": True},
            "cpu",
            "performance.use_liger_kernel is asked for, but Liger's kernels are",
        ),
        (
            "sft",
            {"torch_compile": True},
            "cpu",
            "performance.torch_compile is asked for, but it was only ever meant for GPUs",
        ),
        ("dpo", {"packing": True}, "cpu", "performance.packing is asked for, but dpo needs each row as a sequence"),
        (
            "embedding",
            {"padding_free": True},
            "",
            "performance.padding_free is asked for, but embedding needs each row",
        ),
        ("pretrain", {"group_by_length": True}, "cpu", "performance.group_by_length is asked for, but pretrain fills"),
        ("kto", {"group_by_length": True}, "cpu", "performance.group_by_length is asked for, but kto compares"),
        (
            "embedding",
            {"group_by_length": True},
            "cpu",
            "performance.group_by_length is asked for, but embedding takes",
        ),
        (
            "sft",
            {"packing": True, "padding_free": False},
            "cpu",
            "performance.padding_free is false, but rows that are",
        ),
        (
            "sft",
            {"packing": True, "group_by_length": True},
            "",
            "performance.group_by_length is asked for with packing",
        ),
        (
            "sft",
            {"packing": True, "attn_implementation": "eager"},
            "",
            "performance.attn_implementation is eager, which",
        ),
        ("dpo", {"loss_chunk_tokens": 64}, "cpu", "performance.loss_chunk_tokens is given, but the loss of dpo is"),
        (
            "kto",
            {"attn_implementation": "eager"},
            "cpu",
            "performance.attn_implementation is given, but kto takes that",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(recipe: str, told: dict[str, Any], device: str, sentence: str) -> None:
    found = refusals(Asked.of({"performance": told}, recipe, device))
    assert len(found) == 1 and str(found[0]).startswith(sentence)
    assert str(found[0]).rpartition("; ")[2].startswith(("leave", "take")), "the sentence ends with the fix"


@pytest.mark.parametrize(
    ("recipe", "told", "device"),
    [
        ("sft", {"packing": True}, "cpu"),
        ("pretrain", {"packing": True}, "cpu"),
        ("sft", {"padding_free": False, "group_by_length": True, "dataloader_num_workers": 2}, "cpu"),
        ("sft", {"attn_implementation": FLASH, "use_liger_kernel": True, "torch_compile": True}, "cuda"),
        ("dpo", {"gradient_checkpointing": True, "group_by_length": True}, "cpu"),
        ("token_classification", {"group_by_length": True}, "cpu"),
    ],
)
def test_what_can_be_done_is_not(recipe: str, told: dict[str, Any], device: str) -> None:
    assert not refusals(Asked.of({"performance": told}, recipe, device))


def test_rows_are_not_joined_where_sequences_are_cut() -> None:
    told = {"performance": {"padding_free": True}, "distribution": {"devices": 2, "sequence_parallel_size": 2}}
    assert "performance.padding_free is asked for with sequence_parallel_size" in str(
        refusals(Asked.of(told, "sft"))[0]
    )


def test_batches_that_are_cut_are_made_where_they_are_cut() -> None:
    told = {"performance": {"dataloader_num_workers": 2}, "distribution": {"devices": 2, "sequence_parallel_size": 2}}
    assert "performance.dataloader_num_workers is given with sequence_parallel_size" in str(
        refusals(Asked.of(told, "sft"))[0]
    )


def test_absent_is_left_to_the_recipe() -> None:
    printed = {"attn_implementation": "ATTN_IMPLEMENTATION_UNSPECIFIED", "loss_chunk_tokens": 0, "torch_compile": False}
    assert Performance.of({"performance": printed}) == Performance.of({}) == Performance()
