"""Adapter files are refused before an engine sees them."""

import math
from pathlib import Path

import pytest

from services.gateway.engines.adapter_files import check_adapter
from services.gateway.engines.errors import AdapterRejected
from tests.fakes.engine import write_adapter, write_model, write_safetensors


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
    write_safetensors(adapter / "adapter_model.safetensors", {"base_model.model.lm_head.weight": (4, 8)})
    with pytest.raises(AdapterRejected, match="neither a lora_A nor a lora_B"):
        check_adapter(adapter, write_model(tmp_path / "m"), max_rank=8)
