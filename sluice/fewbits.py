"""How a model's config says that its files hold weights in few bits; pure, knows neither torch nor a service."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

#: What the environment of a version's lineage calls it.
HELD = "quantization"
#: How the words end for files that nothing here trains on.
UNREAD = "which no recipe reads"
#: What a method is called, of all that a config may say.
NAME = re.compile("[a-z0-9_-]{1,30}")
#: The widths that recipes read; a config may say 4.0 too, which would be told as it is.
BITS = (4, 8)
#: More weights share no scale.
MOST = 1 << 20


def few_bits(config: Mapping[str, Any]) -> str:
    """What a `config.json` says: `int4 in groups of 32`, or empty for floats.

    It ends in `UNREAD` for other formats than `pack-quantized` of compressed-tensors, of weights alone
    (https://github.com/vllm-project/compressed-tensors), and those of GPTQModel (AutoGPTQ) and AutoAWQ.
    """
    told = config.get("quantization_config")
    if not isinstance(told, Mapping):
        return ""
    said = told.get("quant_method")
    method = said if isinstance(said, str) and NAME.fullmatch(said) else "unknown"
    groups = told.get("config_groups")
    each = list(groups.values()) if isinstance(groups, Mapping) else []
    if method == "compressed-tensors" and each and all(_is_read(group, told) for group in each):
        return " and ".join(sorted({described(group["weights"]) for group in each}))
    if method in FOREIGN and FOREIGN[method](told):
        return f"{method} {described({'num_bits': told['bits'], 'group_size': told['group_size']})}"
    return f"{method} files, {UNREAD}"


def _is_read(group: Any, told: Mapping[str, Any]) -> bool:
    if not isinstance(group, Mapping) or not isinstance(weights := group.get("weights"), Mapping):
        return False
    layout = group.get("format") or told.get("format")
    compressed = told.get("quantization_status") == "compressed" and not told.get("kv_cache_scheme")
    of_weights = not group.get("input_activations") and not group.get("output_activations")
    bits, size = weights.get("num_bits"), weights.get("group_size")
    whole = weights.get("type", "int") == "int" and type(bits) is int and bits in BITS
    shared = size is None or (type(size) is int and -1 <= size <= MOST)
    return compressed and of_weights and layout == "pack-quantized" and whole and shared


def described(weights: Mapping[str, Any]) -> str:
    """One group's weights, as compressed-tensors writes them, in words."""
    size = weights.get("group_size")
    return f"int{weights.get('num_bits')}" + (f" in groups of {size}" if isinstance(size, int) and size > 0 else "")


def _is_gptq(told: Mapping[str, Any]) -> bool:
    """As AutoGPTQ and GPTQModel write by default, which has no format of its own for some layers."""
    layout = told.get("checkpoint_format", "gptq")
    alike = not told.get("lm_head") and not told.get("dynamic") and told.get("pack_dtype", "int32") == "int32"
    return alike and layout in ("gptq", "gptq_v2") and told.get("bits") in BITS and _has_groups(told)


def _is_awq(told: Mapping[str, Any]) -> bool:
    layout = told.get("version", "gemm"), told.get("bits"), told.get("zero_point", True)
    return layout == ("gemm", 4, True) and _has_groups(told)


def _has_groups(told: Mapping[str, Any]) -> bool:
    size = told.get("group_size")
    return type(told.get("bits")) is int and type(size) is int and 0 < size <= MOST


#: Formats of other libraries, by what they call themselves.
FOREIGN: dict[str, Callable[[Mapping[str, Any]], bool]] = {"gptq": _is_gptq, "awq": _is_awq}
