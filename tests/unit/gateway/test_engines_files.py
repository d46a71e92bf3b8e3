"""Adapter files are refused before an engine sees them."""

import contextlib
import json
import math
from pathlib import Path

import numpy
import pytest
import safetensors.numpy

from services.gateway.engines.adapter_files import check_adapter
from services.gateway.engines.errors import AdapterRejected
from services.gateway.engines.host import EngineHost
from tests.fakes.engine import FakeEngine, write_adapter, write_model, write_safetensors


def test_a_sound_adapter_passes(tmp_path: Path) -> None:
    check_adapter(write_adapter(tmp_path / "a"), write_model(tmp_path / "m"), max_rank=8)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"hidden": 7}, "does not fit"),  # too small: vLLM would serve it without a word
        ({"hidden": 9}, "does not fit"),
        ({"rank": 16}, "not within 1..8"),
        ({"value": math.nan}, "NaN or infinity"),
        ({"value": -math.inf}, "NaN or infinity"),
        ({"use_dora": True}, "plain LoRA"),
        ({"peft_type": "IA3"}, "plain LoRA"),
    ],
)
def test_an_unfit_adapter_is_refused(tmp_path: Path, made: dict[str, object], says: str) -> None:
    adapter = write_adapter(tmp_path / "a", **made)  # type: ignore[arg-type]
    with pytest.raises(AdapterRejected, match=says):
        check_adapter(adapter, write_model(tmp_path / "m"), max_rank=8)


@pytest.mark.parametrize(("hidden", "fits"), [(8, True), (7, False)])
def test_an_adapter_of_a_model_that_sees_is_held_against_its_base(tmp_path: Path, hidden: int, fits: bool) -> None:
    """transformers names the modules otherwise in memory, where the adapter is made, than in the file of the base."""
    adapter = write_adapter(tmp_path / "a", hidden=hidden)
    place = "base_model.model.model.language_model.layers.0.self_attn.q_proj"
    shapes = {f"{place}.lora_A.weight": (4, hidden), f"{place}.lora_B.weight": (hidden, 4)}
    write_safetensors(adapter / "adapter_model.safetensors", shapes)
    with contextlib.nullcontext() if fits else pytest.raises(AdapterRejected, match="does not fit"):
        check_adapter(adapter, write_model(tmp_path / "m"), max_rank=8)


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    adapter = write_adapter(tmp_path / "a")
    (adapter / missing).unlink()
    with pytest.raises(AdapterRejected, match=missing):
        check_adapter(adapter, write_model(tmp_path / "m"), max_rank=8)


@pytest.mark.parametrize("cut", [3, 60, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, cut: int) -> None:
    adapter = write_adapter(tmp_path / "a")
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:cut])
    with pytest.raises(AdapterRejected, match=r"adapter_model\.safetensors"):
        check_adapter(adapter, write_model(tmp_path / "m"), max_rank=8)


def test_a_stranger_among_the_tensors_is_refused(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a")
    model, tensors = write_model(tmp_path / "m"), adapter / "adapter_model.safetensors"
    write_safetensors(tensors, {"base_model.model.model.norm.weight": (4, 8)})
    with pytest.raises(AdapterRejected, match="neither a lora_A nor a lora_B"):
        check_adapter(adapter, model, max_rank=8)
    write_safetensors(tensors, {"base_model.model.lm_head.lora_A.weight": (4, 8)})
    with pytest.raises(AdapterRejected, match="tunes the vocabulary's matrix"):
        check_adapter(adapter, model, max_rank=8)


@pytest.mark.parametrize(
    ("config", "room", "says"),
    [
        ({"vision_config": {}}, "visual.blocks.0.attn.qkv", ""),
        ({"vision_config": {}, "audio_config": {}}, "visual.blocks.0.attn.qkv", "tunes the tower of a base that hears"),
        ({"vision_config": {}, "audio_config": {}}, "visual.merger.mlp.0", "tunes the projector of a base that hears"),
        ({"audio_config": {}}, "encoder.layers.0.q_proj", "tunes the audio_tower of a base that hears"),
        ({"audio_config": {}}, "language_model.layers.1.q_proj", ""),
        ({"vision_config": {}}, "audio_tower.layers.0.q_proj", "tunes what hears"),
        ({}, "bert.encoder.layer.0.query", ""),
    ],
)
def test_what_an_engine_would_leave_out_without_a_word_is_refused(
    tmp_path: Path, config: dict[str, object], room: str, says: str
) -> None:
    adapter, model = write_adapter(tmp_path / "a"), write_model(tmp_path / "m", **config)  # type: ignore[arg-type]
    place = f"base_model.model.model.{room}"
    shapes = {f"{place}.lora_A.weight": (4, 8), f"{place}.lora_B.weight": (8, 4)}
    write_safetensors(adapter / "adapter_model.safetensors", shapes)
    with pytest.raises(AdapterRejected, match=f"{says}.* Merge it") if says else contextlib.nullcontext():
        check_adapter(adapter, model, max_rank=8)


def test_an_adapter_of_a_base_that_takes_none_is_refused_before_an_engine_starts(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a")
    model = write_model(tmp_path / "m", architectures=["Qwen2AudioForConditionalGeneration"])
    says = "no adapter on a base of Qwen2AudioForConditionalGeneration. Merge it"
    with pytest.raises(AdapterRejected, match=says):
        check_adapter(adapter, model, max_rank=8)
    with pytest.raises(AdapterRejected, match=says):
        EngineHost(tmp_path / "host", FakeEngine()).rank_of(adapter, model)


PLACE = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("method", "stored"),
    [
        ({"quant_method": "gptq", "bits": 4}, {"qweight": numpy.zeros((2, 16), "int32")}),
        ({"quant_method": "awq", "bits": 4}, {"qweight": numpy.zeros((16, 2), "int32")}),
        (
            {"quant_method": "compressed-tensors"},
            {"weight_packed": numpy.zeros((16, 2), "int32"), "weight_shape": numpy.array([16, 16])},
        ),
    ],
)
@pytest.mark.parametrize(("hidden", "says"), [(16, ""), (8, "does not fit"), (2, "does not fit")])
def test_an_adapter_is_held_against_weights_of_few_bits(
    tmp_path: Path, method: dict[str, object], stored: dict[str, numpy.ndarray], hidden: int, says: str
) -> None:
    adapter, model = write_adapter(tmp_path / "a", hidden=hidden), write_model(tmp_path / "m")
    (model / "config.json").write_text(json.dumps({"quantization_config": method}))
    safetensors.numpy.save_file({f"{PLACE}.{name}": each for name, each in stored.items()}, model / "model.safetensors")
    with pytest.raises(AdapterRejected, match=says) if says else contextlib.nullcontext():
        check_adapter(adapter, model, max_rank=8)


def test_an_adapter_of_few_bits_whose_shape_no_file_tells_is_refused(tmp_path: Path) -> None:
    adapter, model = write_adapter(tmp_path / "a"), write_model(tmp_path / "m")
    (model / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "hqq"}}))
    safetensors.numpy.save_file({f"{PLACE}.W_q": numpy.zeros((8, 1), "int32")}, model / "model.safetensors")
    with pytest.raises(AdapterRejected, match=r"few bits whose shape no file tells\. Merge it"):
        check_adapter(adapter, model, max_rank=8)
