"""Weights in few bits as GPTQModel and AutoAWQ write them, read as those of compressed-tensors; knows no task.

The numbers stay what they are; only where their bits lie changes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
from compressed_tensors.entrypoints.convert.converters.autoawq import AutoAWQConverter
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, GenerationConfig, PretrainedConfig, PreTrainedModel

from services.trainer.recipes.models.stored import check_whole

Tensors = dict[str, Tensor]
PARTS = (".qweight", ".qzeros", ".scales", ".g_idx")


def load_foreign(kind: type, folder: Path, dtype: str, **given: Any) -> PreTrainedModel:
    """A model of the class `kind` whose files are of these formats, as compressed-tensors loads its own.

    Raises what transformers does, KeyError where a layer lacks a part, and BadInput where a weight is missing.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    told = config.quantization_config
    tensors: Tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(file))
    tensors = READERS[told["quant_method"]](tensors, told)
    config.quantization_config = _told_anew(tensors, told)
    if hasattr(kind, "_model_mapping"):  # the class for any model, which takes a folder alone
        kind = kind._model_mapping[type(config)]
    model, info = kind.from_pretrained(
        None, config=config, state_dict=tensors, dtype=dtype, output_loading_info=True, **given
    )
    check_whole(info, folder)  # an index of several files is not read here, so nothing else misses one
    return _with_generation(model, folder, config)


def _with_generation(model: PreTrainedModel, folder: Path, config: PretrainedConfig) -> PreTrainedModel:
    """What is read beside weights where they come from a folder."""
    config.name_or_path = str(folder)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def _from_gptq(tensors: Tensors, told: Mapping[str, Any]) -> Tensors:
    """`qweight` (inputs / n, outputs) packs inputs and is a transposed `weight_packed`; `qzeros` (groups, outputs / n)
    holds zero points, less one but in the format `gptq_v2`; `g_idx` the group of each input where these were sorted.
    """
    bits = told["bits"]
    less = 0 if told.get("checkpoint_format") == "gptq_v2" else 1
    half, most = 1 << bits - 1, (1 << bits) - 1
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith(PARTS)}
    for layer in _layers(tensors):
        packed, scales = tensors[f"{layer}.qweight"], tensors[f"{layer}.scales"]
        signed = unpack_from_int32(tensors[f"{layer}.qzeros"], bits, scales.shape).int()
        zeros = ((signed + half + less) & most) - half
        found[f"{layer}.weight_packed"] = packed.T.contiguous()
        found[f"{layer}.weight_scale"] = scales.T.contiguous()
        found[f"{layer}.weight_zero_point"] = pack_to_int32(zeros.to(torch.int8).T.contiguous(), bits, packed_dim=0)
        found[f"{layer}.weight_shape"] = torch.tensor([packed.shape[1], packed.shape[0] * (32 // bits)])
        if told.get("desc_act"):
            found[f"{layer}.weight_g_idx"] = tensors[f"{layer}.g_idx"].int()
    return found


def _from_awq(tensors: Tensors, told: Mapping[str, Any]) -> Tensors:
    """By compressed-tensors' own converter."""
    found: Tensors = AutoAWQConverter(group_size=told["group_size"], ignore=()).process(tensors)
    return found


def _layers(tensors: Tensors) -> list[str]:
    return [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]


def _told_anew(tensors: Tensors, told: Mapping[str, Any]) -> dict[str, Any]:
    """What a config of compressed-tensors says of them; linear layers that were left alone are named."""
    alone = {
        name.removesuffix(".weight") for name, each in tensors.items() if name.endswith(".weight") and each.ndim == 2
    }
    weights = {"num_bits": told["bits"], "type": "int", "strategy": "group", "group_size": told["group_size"]}
    weights |= {"symmetric": False, "actorder": "group" if told.get("desc_act") else None}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "format": "pack-quantized"}},
        "ignore": sorted(alone | {"lm_head"}),
    }


READERS: dict[str, Callable[[Tensors, Mapping[str, Any]], Tensors]] = {"gptq": _from_gptq, "awq": _from_awq}
