"""Bases whose files hold weights in few bits: how a config says so, and what of them is refused at submission."""

from typing import Any

import pytest

from kit.rpc.errors import Invalid
from services.trainer.refusals import QUANTIZING, RULES_OF_FEW_BITS, Asked, refusals
from sluice.fewbits import UNREAD, few_bits
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types
from tests.unit.trainer.test_exporting import Peers
from tests.unit.trainer.training_jobs import sft_spec

HELD = "gptq int4 in groups of 32"
BASE = "projects/p/models/few/versions/1"
WEIGHTS = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}


def config(weights: Any = WEIGHTS, **told: Any) -> dict[str, Any]:
    group = {"weights": weights, "targets": ["Linear"], **told.pop("group", {})}
    said = {"format": "pack-quantized", "quantization_status": "compressed", "config_groups": {"group_0": group}}
    return {"quantization_config": {"quant_method": "compressed-tensors", **said, **told}}


def of(method: str, **told: Any) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": method, "bits": 4, "group_size": 128, **told}}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ""),
        ({"quantization_config": None}, ""),
        (config(), "int4 in groups of 32"),
        (config({**WEIGHTS, "num_bits": 8, "group_size": None, "strategy": "channel"}), "int8"),
        (config({**WEIGHTS, "num_bits": "4"}), f"compressed-tensors files, {UNREAD}"),
        (config({**WEIGHTS, "type": "float", "num_bits": 8}), f"compressed-tensors files, {UNREAD}"),
        (config(group={"input_activations": {"num_bits": 8}}), f"compressed-tensors files, {UNREAD}"),
        (config(group={"format": "nvfp4-pack-quantized"}), f"compressed-tensors files, {UNREAD}"),
        (config(quantization_status="frozen"), f"compressed-tensors files, {UNREAD}"),
        (config(kv_cache_scheme={"num_bits": 8}), f"compressed-tensors files, {UNREAD}"),
        (config({**WEIGHTS, "num_bits": 4.0}), f"compressed-tensors files, {UNREAD}"),
        (config({**WEIGHTS, "group_size": 10**4000}), f"compressed-tensors files, {UNREAD}"),
        (config({**WEIGHTS, "group_size": True}), f"compressed-tensors files, {UNREAD}"),
        (config({**WEIGHTS, "group_size": -1}), "int4"),
        (config(config_groups=[1]), f"compressed-tensors files, {UNREAD}"),
        (config(weights=3), f"compressed-tensors files, {UNREAD}"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, f"gptq files, {UNREAD}"),
        (of("gptq"), "gptq int4 in groups of 128"),
        (of("gptq", bits=8, checkpoint_format="gptq_v2", desc_act=True), "gptq int8 in groups of 128"),
        (of("gptq", checkpoint_format="marlin"), f"gptq files, {UNREAD}"),
        (of("gptq", group_size=-1), f"gptq files, {UNREAD}"),
        (of("gptq", bits=4.0), f"gptq files, {UNREAD}"),
        (of("awq", bits=4.0), f"awq files, {UNREAD}"),
        (of("gptq", group_size=10**4000), f"gptq files, {UNREAD}"),
        (of("gptq", bits=3), f"gptq files, {UNREAD}"),
        (of("gptq", lm_head=True), f"gptq files, {UNREAD}"),
        (of("gptq", dynamic={"layer": {}}), f"gptq files, {UNREAD}"),
        (of("awq", version="gemm", zero_point=True), "awq int4 in groups of 128"),
        (of("awq", version="gemv"), f"awq files, {UNREAD}"),
        (of("awq", zero_point=False), f"awq files, {UNREAD}"),
        ({"quantization_config": {"quant_method": "x" * 1000}}, f"unknown files, {UNREAD}"),
        ({"quantization_config": {"quant_method": ["gptq"]}}, f"unknown files, {UNREAD}"),
        ({"quantization_config": {}}, f"unknown files, {UNREAD}"),
    ],
)
def test_a_config_says_how_its_files_hold_weights(given: dict[str, Any], words: str) -> None:
    assert few_bits(given) == words


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("sft", {}, f"gptq files, {UNREAD}", "base_model_version holds its weights in gptq files, which no recipe reads"),
    ("rm", {"lora": {"rank": 8}}, HELD, "base_model_version holds its weights as gptq int4 in groups of 32, and rm"),
    ("dpo", {"full": {}}, HELD, "full trains all weights, and those of the base, gptq int4 in groups of 32, cannot"),
    ("sft", {"vera": {}}, HELD, "vera is merged into its base to be served, and nothing can be merged into weights"),
    ("sft", {"lora": {"variant": "LORA_VARIANT_DORA"}}, HELD, "lora.variant is dora, which is merged into its base"),
    ("orpo", {"lora": {"variant": "LORA_VARIANT_PISSA"}}, HELD, "lora.variant is pissa, which is merged into its"),
    ("sft", {"lora": {"quantization": "QUANTIZATION_NF4"}}, HELD, "lora.quantization is nf4, but the base's weights"),
    ("sft", {"distribution": {"devices": 2}}, HELD, "distribution.devices is more than 1, but on several devices"),
    ("sft", {"performance": {"torch_compile": True}}, HELD, "performance.torch_compile is asked for, but weights"),
]


@pytest.mark.parametrize(("recipe", "parameters", "held", "sentence"), REFUSED)
def test_what_cannot_be_done_on_such_a_base_is_refused_with_the_fix(
    recipe: str, parameters: dict[str, Any], held: str, sentence: str
) -> None:
    found = [str(each) for each in refusals(Asked.of(parameters, recipe, "cuda", 8, held))]
    assert len(found) == 1 and found[0].startswith(sentence), found
    assert "; " in found[0] and "{" not in found[0], "it names the fix"
    floats = refusals(Asked.of(parameters, recipe, "cuda", 8))
    assert not floats, "of floats it can be done"


def test_every_rule_is_tried() -> None:
    tried = {
        number
        for recipe, given, held, _ in REFUSED
        for number, rule in enumerate(RULES_OF_FEW_BITS)
        if rule.breaks(Asked.of(given, recipe, "cuda", 8, held))
    }
    assert tried == set(range(len(RULES_OF_FEW_BITS)))


@pytest.mark.parametrize("recipe", QUANTIZING)
@pytest.mark.parametrize("variant", ["", "rslora", "lora_plus"])
def test_adapters_that_lie_beside_a_base_are_trained_on_it(recipe: str, variant: str) -> None:
    assert not refusals(Asked.of({"lora": {"rank": 8, "variant": variant}}, recipe, "cpu", 0, HELD))


async def test_a_submission_is_told_by_what_the_base_s_lineage_says() -> None:
    whole = Peers(kind=types.ARTIFACT_KIND_FULL, held=HELD)
    spec = sft_spec(lora=trainer.LoraTuner(rank=8), base_model_version=BASE)
    assert (await whole.resolve(spec)).base_model_version == spec.base_model_version
    with pytest.raises(Invalid, match=r"spec\.full trains all weights, and those of the base, gptq int4"):
        await whole.resolve(sft_spec(full=trainer.FullTuner(), base_model_version=BASE))


async def test_a_teacher_may_be_of_few_bits_and_a_base_of_another_recipe_may_not() -> None:
    spec = sft_spec(lora=trainer.LoraTuner(rank=8), base_model_version=BASE, task_type="gkd")
    spec.gkd.teacher_model_version = BASE
    whole = Peers("gkd", kind=types.ARTIFACT_KIND_FULL, held=HELD)
    assert (await whole.resolve(spec)).gkd.teacher_model_version == BASE
    spec = sft_spec(base_model_version=BASE, task_type="rm")
    spec.rm.SetInParent()
    with pytest.raises(Invalid, match="and rm computes on a base of floats; take the version that it was made from"):
        await Peers("rm", kind=types.ARTIFACT_KIND_FULL, held=HELD).resolve(spec)


@pytest.mark.parametrize(
    ("peers", "sentence"),
    [
        (Peers("gkd", kind=types.ARTIFACT_KIND_FULL, held=f"fp8 files, {UNREAD}"), "holds its weights as fp8 files, "),
        (Peers("gkd", below=f"fp8 files, {UNREAD}"), "is an adapter on weights held as fp8 files, which no recipe"),
    ],
)
async def test_a_teacher_that_no_recipe_reads_is_refused_when_it_is_named(peers: Peers, sentence: str) -> None:
    spec = sft_spec(task_type="gkd")
    spec.base_model_version = ""
    spec.gkd.teacher_model_version = "projects/p/models/m/versions/2"
    with pytest.raises(Invalid, match=rf"spec\.gkd\.teacher_model_version `.*` {sentence}"):
        await peers.resolve(spec)
