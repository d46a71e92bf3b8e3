"""Makes the folder of a base whose files hold its weights in few bits, rounded to the nearest; no llmcompressor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

GROUP = 16


def packed_base(source: Path, folder: Path, *, symmetric: bool = True) -> Path:
    """`source` in integers of 4 bits, in the format that exports by GPTQ (symmetric) and AWQ write."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        apply_quantization_config,
    )
    from compressed_tensors.quantization.utils import calculate_qparams
    from transformers import AutoModelForCausalLM

    shutil.copytree(source, folder)
    model = AutoModelForCausalLM.from_pretrained(source, dtype="float32")
    weights = QuantizationArgs(num_bits=4, type="int", symmetric=symmetric, strategy="group", group_size=GROUP)
    schemes = {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)}
    apply_quantization_config(
        model, QuantizationConfig(config_groups=schemes, ignore=["lm_head"], quantization_status="frozen")
    )
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            groups = module.weight.data.unflatten(1, (-1, GROUP))
            scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), weights)
            module.weight_scale.data = scale
            module.weight_zero_point.data = zero.to(module.weight_zero_point.dtype)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(str(folder))
    return folder


def floats_of(packed: Path, folder: Path) -> Path:
    """The base of floats that a packed one stands for, unpacked by transformers."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(packed, folder)
    model = AutoModelForCausalLM.from_pretrained(packed, dtype="float32")
    model.hf_quantizer.compressor.decompress_model(model)
    weights = {name: weight for name, weight in model.state_dict().items() if not name.endswith(("_scale", "_shape"))}
    config = AutoConfig.from_pretrained(packed)
    del config.quantization_config
    found = AutoModelForCausalLM.from_config(config, dtype="float32")
    found.load_state_dict({name: weight for name, weight in weights.items() if not name.endswith("_zero_point")})
    found.save_pretrained(folder)
    return folder


#: Which of eight outputs lies in each place of an integer of AutoAWQ's, from its lowest bits on.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def foreign_base(source: Path, folder: Path, form: str) -> tuple[Path, dict[str, torch.Tensor]]:
    """`source` with made-up weights of 4 bits in the layout of `gptq`, `gptq_v2`, `gptq sorted` or `awq`, written by
    what these libraries say of it; and by layer the weight (outputs, inputs) that they mean.
    """
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder)
    tensors, meant = {}, {}
    torch.manual_seed(7)
    for name, weight in load_file(source / "model.safetensors").items():
        layer = name.removesuffix(".weight")
        if not layer.endswith("_proj"):
            tensors[name] = weight
            continue
        outputs, inputs = weight.shape
        groups = torch.arange(inputs) // GROUP
        if form == "gptq sorted":
            groups = groups[torch.randperm(inputs)]
        numbers = torch.randint(0, 16, (inputs, outputs))
        zeros = torch.randint(4, 12, (inputs // GROUP, outputs))
        scales = torch.rand(inputs // GROUP, outputs) / 50 + 0.01
        meant[layer] = ((numbers - zeros[groups]) * scales[groups]).T
        tensors[f"{layer}.scales"] = scales
        if form == "awq":
            tensors[f"{layer}.qweight"] = _joined(numbers.view(inputs, -1, 8)[..., list(AWQ_ORDER)])
            tensors[f"{layer}.qzeros"] = _joined(zeros.view(len(zeros), -1, 8)[..., list(AWQ_ORDER)])
        else:
            tensors[f"{layer}.qweight"] = _joined(numbers.T.reshape(outputs, -1, 8)).T.contiguous()
            less = 0 if form == "gptq_v2" else 1
            tensors[f"{layer}.qzeros"] = _joined((zeros - less).view(len(zeros), -1, 8))
            tensors[f"{layer}.g_idx"] = groups.int()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    told = {"quant_method": form.split("_")[0].split()[0], "bits": 4, "group_size": GROUP}
    told |= (
        {"zero_point": True, "version": "gemm"} if form == "awq" else {"desc_act": form == "gptq sorted", "sym": False}
    )
    told |= {"checkpoint_format": form} if form == "gptq_v2" else {}
    config = json.loads((source / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": told}), "utf-8")
    return folder, meant


def _joined(numbers: torch.Tensor) -> torch.Tensor:
    """Eight numbers of 4 bits in one of 32, the first in the lowest bits."""
    import torch

    shifted = numbers.long() << torch.arange(0, 32, 4)
    return shifted.sum(-1).where(shifted.sum(-1) < 1 << 31, shifted.sum(-1) - (1 << 32)).int()
