"""What of a job's distribution is refused, with what to ask for instead; no torch."""

from typing import Any

import pytest

from kit.rpc.errors import Invalid
from services.trainer.agent.recipe import RANKS, shared_out
from services.trainer.agent.staging import recipe_spec
from services.trainer.distribution import IN_SHARES, RECIPES, SHARDINGS, Distribution
from services.trainer.refusals import Asked, refusals
from services.trainer.spec import check_possible
from sluice.client.specs import training_spec
from sluice.trainer import v1 as trainer


def said(recipe: str = "sft", device: str = "cuda", devices: int = 8, **parameters: Any) -> list[str]:
    distribution = {"devices": 2, **parameters.pop("distribution", {})}
    given = {**({} if "lora" in parameters else {"full": {}}), "distribution": distribution, **parameters}
    return list(map(str, refusals(Asked.of(given, recipe, device, devices))))


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_what_was_trained_so_is_taken_and_nothing_else(recipe: str, sharding: str) -> None:
    told = {"devices": 4, "sharding": f"SHARDING_{sharding.upper()}"}
    for tuner in ("full", "lora"):
        if (recipe, tuner) == ("pretrain", "lora"):
            continue
        found = said(recipe, "cpu", 4, distribution=told, **{tuner: {}})
        taken = sharding in RECIPES[recipe] and not (tuner == "lora" and recipe != "sft" and sharding in IN_SHARES)
        assert taken == (not found) and all("was not compared with one process; take ddp" in each for each in found)


def test_shares_of_matrices_and_of_sequences_are_taken() -> None:
    assert said(distribution={"tensor_parallel_size": 2}) == []
    assert said(distribution={"devices": 8, "sequence_parallel_size": 2, "sharding": "zero3"}) == []
    assert said(distribution={"sharding": "zero3", "offload_optimizer": True, "offload_weights": True}) == []


@pytest.mark.parametrize(
    ("distribution", "field", "words"),
    [
        ({"devices": 9}, "devices", "is 9, but the pool has 8 (cuda) for a job; lower it"),
        ({"nodes": 2}, "nodes", "a job runs on one host; set it to 1"),
        ({"pipeline_parallel_size": 2}, "pipeline_parallel_size", "take zero3, fsdp or tensor_parallel_size"),
        ({"devices": 3, "sequence_parallel_size": 2}, "sequence_parallel_size", "does not divide the 3 devices"),
        ({"devices": 1, "sharding": "zero2"}, "sharding", "needs 2 devices or more"),
        ({"offload_optimizer": True}, "offload_optimizer", "with ddp, and it is DeepSpeed that does it"),
        ({"sharding": "fsdp", "offload_optimizer": True}, "offload_optimizer", "take zero1, zero2 or zero3"),
        ({"sharding": "zero2", "offload_weights": True}, "offload_weights", "take zero3"),
        ({"devices": 4, "tensor_parallel_size": 2}, "tensor_parallel_size", "set it to the 4 devices"),
        ({"tensor_parallel_size": 2, "sharding": "zero1"}, "tensor_parallel_size", "leave sharding"),
    ],
)
def test_what_cannot_be_shared_out_so_is_refused_by_its_field(
    distribution: dict[str, Any], field: str, words: str
) -> None:
    [sentence] = said(distribution=distribution)
    assert sentence.startswith(f"distribution.{field} is ") and words in sentence


@pytest.mark.parametrize(
    ("recipe", "parameters", "words"),
    [
        ("grpo", {}, "distribution.devices is 2, but grpo is trained on one device by this version"),
        ("embedding", {"embedding": {"mini_batch_size": 8}}, "embedding.mini_batch_size is given, and its gradients"),
        ("dpo", {"distribution": {"sequence_parallel_size": 2}}, "the loss of dpo takes whole answers"),
        ("dpo", {"distribution": {"tensor_parallel_size": 2}}, "which dpo was not made for; take zero3 or fsdp"),
        ("sft", {"lora": {}, "distribution": {"tensor_parallel_size": 2}}, "adapters have no plan"),
        ("sft", {"lora": {"quantization": "nf4"}}, "lora.quantization is nf4, but on several devices"),
        ("sft", {"lora": {"variant": "lora_plus"}}, "lora_plus is trained on one device; take full or lora"),
        ("sft", {"optimization": {"optimizer": "galore"}}, "optimization.optimizer is galore"),
        (
            "sft",
            {"optimization": {"optimizer": "adafactor"}, "distribution": {"sharding": "zero1"}},
            "is adafactor, and zero1 gives it shares of matrices",
        ),
    ],
)
def test_what_was_not_trained_so_is_refused(recipe: str, parameters: dict[str, Any], words: str) -> None:
    found = said(recipe, **parameters)
    assert any(words in sentence for sentence in found), found


def test_other_accelerators_are_refused_and_one_process_is_no_distribution() -> None:
    assert "on npu jobs run on one device" in said(device="npu")[0]
    assert Distribution.of({"distribution": {"devices": 0, "sharding": "SHARDING_UNSPECIFIED"}}) == Distribution()
    assert refusals(Asked.of({"full": {}}, "gkd", "npu", 1)) == []


def test_a_spec_is_refused_at_submission_and_staged_for_its_processes() -> None:
    spec = training_spec(
        "projects/default",
        dataset="rows@1",
        model="bot",
        task_type="sft",
        base="base@1",
        tuner="full",
        devices=2,
        sharding="zero2",
        offload_optimizer=True,
    )
    check_possible(spec, "cpu", 2)
    with pytest.raises(Invalid, match=r"spec\.distribution\.devices is 2, but the pool has 1"):
        check_possible(spec, "cpu", 1)
    staged = recipe_spec(trainer.TrainingJob(name="projects/default/trainingJobs/1", spec=spec), 1)
    told = Distribution.of(staged["parameters"])
    assert told == Distribution(devices=2, sharding="zero2", offload_optimizer=True)
    assert shared_out(["recipe"], spec) == (*RANKS, "recipe")
    spec.ClearField("distribution")
    assert shared_out(["recipe"], spec) == ["recipe"]
