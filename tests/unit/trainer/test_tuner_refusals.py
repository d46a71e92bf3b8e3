"""What is refused of tuners and optimizers when a job is submitted, and what the trainer thinks it computes on."""

import json
from typing import Any

import pytest

from kit.rpc.errors import Invalid
from services.trainer.recipes.job.offline import packages
from services.trainer.refusals import RULES, Asked, refusals
from services.trainer.settings import TrainerSettings
from services.trainer.spec import check_possible
from sluice.trainer import v1 as trainer
from tests.unit.trainer.test_inputs import Peers, person
from tests.unit.trainer.training_jobs import sft_spec

LORA = {"rank": 8}


def optimizer(name: str, **more: Any) -> dict[str, Any]:
    return {"optimization": {"optimizer": f"OPTIMIZER_{name.upper()}", **more}}


def variant(name: str, **more: Any) -> dict[str, Any]:
    return {"lora": {**LORA, "variant": f"LORA_VARIANT_{name.upper()}", **more}}


FULL = {"full": {}}
REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("sft", optimizer("paged_adamw_8bit"), "cpu", "optimization.optimizer is paged_adamw_8bit, which pages"),
    ("sft", optimizer("paged_adamw_8bit"), "xpu", "optimization.optimizer is paged_adamw_8bit, which pages"),
    ("sft", optimizer("adamw_8bit"), "mps", "optimization.optimizer is adamw_8bit, for which there is no library on"),
    ("sft", optimizer("galore"), "cuda", "optimization.optimizer is galore, which saves memory where all weights"),
    ("sft", {**optimizer("q_galore"), **FULL}, "cuda", "optimization.optimizer is q_galore, whose library"),
    ("sft", {**optimizer("apollo"), "vera": {}}, "cpu", "optimization.optimizer is apollo, which saves memory where"),
    ("sft", {**optimizer("lomo"), "lora": LORA}, "cpu", "optimization.optimizer is lomo, which saves memory where"),
    (
        "sft",
        {**optimizer("lomo", gradient_accumulation_steps=2), **FULL},
        "cpu",
        "optimization.gradient_accumulation_steps is more than 1, but lomo",
    ),
    ("sft", {**optimizer("lomo", max_grad_norm=1.0), **FULL}, "cpu", "optimization.max_grad_norm is given, but lomo"),
    ("sft", {**optimizer("lomo", weight_decay=0.1), **FULL}, "cpu", "optimization.weight_decay is given, but lomo"),
    ("pretrain", {"oft": {}}, "cpu", "oft is an adapter, and pretrain trains all weights"),
    ("pretrain", {"lora": LORA}, "cuda", "lora is an adapter, and pretrain trains all weights"),
    ("embedding", {"adalora": {}}, "cpu", "adalora is asked for, but peft adds its regularizer to the"),
    ("dpo", {"adalora": {}}, "cpu", "adalora is asked for, but peft adds its regularizer to the"),
    ("sft", {"lora": {**LORA, "learning_rate_ratio": 8}}, "cpu", "lora.learning_rate_ratio is given, but only"),
    (
        "sft",
        {**variant("lora_plus"), **optimizer("adafactor")},
        "cpu",
        "optimization.optimizer is adafactor, but the ratio",
    ),
    ("sft", variant("pissa", quantization="QUANTIZATION_NF4"), "cuda", "lora.quantization is nf4, but pissa begins"),
    ("sft", variant("olora", quantization="QUANTIZATION_INT8"), "cuda", "lora.quantization is int8, but olora begins"),
    ("sft", {"lora": {**LORA, "quantization": "nf4"}}, "npu", "lora.quantization is nf4, for which there is no lib"),
    (
        "rm",
        {"lora": {**LORA, "quantization": "nf4"}},
        "cpu",
        "lora.quantization is nf4, but rm holds its base in floats",
    ),
    (
        "fusion",
        {"fusion": "FUSION_LATE", "lora": {**LORA, "quantization": "nf4"}},
        "cpu",
        "lora.quantization is nf4, but",
    ),
    ("fusion", {"fusion": {"fusion": "FUSION_LATE"}, "adalora": {}}, "cpu", "adalora is asked for, but peft adds its"),
    ("embedding", {"lora": {**LORA, "quantization": "int8"}}, "cpu", "lora.quantization is int8, but embedding holds"),
    ("sft", variant("pissa", dropout=0.1), "cpu", "lora.dropout is given, but with pissa it would drop"),
    ("dpo", variant("pissa"), "cpu", "lora.variant is pissa, which takes a part out of the base's weights, and dpo"),
    ("kto", variant("olora"), "cpu", "lora.variant is olora, which takes a part out of the base's weights, and kto"),
    ("sft", {"adalora": {"rank": 8, "initial_rank": 8}}, "cpu", "adalora.initial_rank is not above the rank at"),
    ("sft", {"adalora": {"initial_rank": 4}}, "cpu", "adalora.initial_rank is not above the rank at"),
    (
        "sft",
        {"adalora": {}, "optimization": {"max_steps": 9}},
        "cpu",
        "optimization.max_steps is below 10, the least in which adalora",
    ),
    (
        "vision",
        {"performance": {"dataloader_pin_memory": True}},
        "cpu",
        "performance.dataloader_pin_memory is asked for",
    ),
]
DONE: list[tuple[str, dict[str, Any], str]] = [
    ("sft", {}, "cpu"),
    ("pretrain", {}, "cpu"),
    ("pretrain", {**FULL, **optimizer("galore")}, "mps"),
    ("sft", optimizer("paged_adamw_8bit"), "cuda"),
    ("sft", {**variant("lora_plus", learning_rate_ratio=8), **optimizer("adamw_8bit")}, "cpu"),
    ("sft", variant("dora", quantization="QUANTIZATION_NF4", dropout=0.1), "cpu"),
    ("sft", variant("unspecified"), "npu"),
    ("dpo", variant("dora"), "cpu"),
    ("orpo", variant("pissa"), "cpu"),
    ("sft", {**optimizer("lomo", max_grad_norm=0.0, gradient_accumulation_steps=1), **FULL}, "cpu"),
    ("sft", {"adalora": {"rank": 4, "initial_rank": 5}, "optimization": {"max_steps": 10}}, "cpu"),
    ("vision", {"performance": {"dataloader_pin_memory": True}}, "cuda"),
    ("vision", {"performance": {"dataloader_pin_memory": False}, "vision": {"train_projector": True}}, "cpu"),
]


@pytest.mark.parametrize(("recipe", "parameters", "device", "sentence"), REFUSED)
def test_what_cannot_be_done_is_refused_with_the_field_and_the_fix(
    recipe: str, parameters: dict[str, Any], device: str, sentence: str
) -> None:
    found = [str(each) for each in refusals(Asked.of(parameters, recipe, device))]
    assert len(found) == 1 and found[0].startswith(sentence)
    assert "; " in found[0] and "{" not in found[0], "it names the fix"


def test_every_rule_is_tried() -> None:
    broken = {
        id(rule) for recipe, given, on, _ in REFUSED for rule in RULES if rule.breaks(Asked.of(given, recipe, on))
    }
    assert broken == {id(rule) for rule in RULES}


@pytest.mark.parametrize(("recipe", "parameters", "device"), DONE)
def test_what_can_be_done_is_not_refused(recipe: str, parameters: dict[str, Any], device: str) -> None:
    assert refusals(Asked.of(parameters, recipe, device)) == []


def test_a_submission_is_told_every_field_at_once() -> None:
    optimization = trainer.Optimization(optimizer=trainer.OPTIMIZER_LOMO, gradient_accumulation_steps=4)
    spec = sft_spec(lora=trainer.LoraTuner(rank=8), optimization=optimization)
    with pytest.raises(Invalid, match=r"^spec\.optimization\.optimizer is lomo, .* take the tuner full") as refused:
        check_possible(spec, "cpu")
    assert [field for field, _ in refused.value.violations] == [
        "training_job.spec.optimization.optimizer",
        "training_job.spec.optimization.gradient_accumulation_steps",
    ]
    check_possible(sft_spec(full=trainer.FullTuner()), "cpu")
    quantized = trainer.LoraTuner(rank=8, quantization=trainer.QUANTIZATION_NF4)
    check_possible(sft_spec(lora=quantized), "cuda")
    with pytest.raises(Invalid, match="on npu"):
        check_possible(sft_spec(lora=quantized), "npu")


async def test_what_the_pool_cannot_do_never_becomes_a_job() -> None:
    paged = trainer.Optimization(optimizer=trainer.OPTIMIZER_PAGED_ADAMW_8BIT)
    with pytest.raises(Invalid, match="the pool computes on cpu; take adamw_8bit"):
        await Peers().resolve(person(), optimization=paged)
    found = await Peers().resolve(person(), optimization=trainer.Optimization(optimizer=trainer.OPTIMIZER_ADAMW_8BIT))
    assert found.lora.rank == 16


def test_every_tuner_of_the_contract_is_known() -> None:
    from services.trainer.refusals import TUNERS

    assert set(TUNERS) == {each.name for each in trainer.TrainingJobSpec.DESCRIPTOR.oneofs_by_name["tuner"].fields}


@pytest.mark.parametrize(
    ("environ", "device"),
    [
        ({"SLUICE_DEVICE_TYPE": "npu"}, "npu"),
        ({"DEVICE_TYPE": "ASCEND"}, "npu"),
        ({"SLUICE_DEVICE_TYPE": "cpu", "SLUICE_TRAINER_BACKEND": "ray", "SLUICE_RAY_GPUS": "1"}, "cpu"),
        ({"SLUICE_TRAINER_BACKEND": "ray", "SLUICE_RAY_GPUS": "0.5"}, "cuda"),
        ({"SLUICE_TRAINER_BACKEND": "ray"}, "cpu"),
    ],
)
def test_what_recipes_compute_on_is_told_or_found(environ: dict[str, str], device: str) -> None:
    assert TrainerSettings.from_env(environ).device == device


def test_a_device_that_torch_has_not_is_named() -> None:
    with pytest.raises(ValueError, match="SLUICE_DEVICE_TYPE is `gpu`; it takes one of cpu, cuda, xpu, npu, mps"):
        TrainerSettings.from_env({"SLUICE_DEVICE_TYPE": "gpu"})


@pytest.mark.parametrize(
    ("parameters", "needed"),
    [
        ({}, set()),
        (optimizer("adamw"), set()),
        (optimizer("adamw_8bit"), {"bitsandbytes"}),
        ({**optimizer("galore"), **FULL}, {"bitsandbytes"}),
        ({"lora": {"quantization": "QUANTIZATION_INT8"}}, {"bitsandbytes"}),
        ({"lora": []}, set()),
    ],
)
def test_a_recipe_imports_only_what_its_spec_needs(tmp_path, parameters: dict[str, Any], needed: set[str]) -> None:
    (tmp_path / "spec.json").write_text(json.dumps({"parameters": parameters}))
    assert packages(tmp_path / "spec.json") == needed
    assert packages(tmp_path / "none.json") == set()
