"""Checks a LoRA adapter's files before an engine sees them; knows safetensors headers and no engine.

An engine cannot be trusted with this: vLLM 0.32 serves an adapter with too small matrices without a word, and
after one that computes NaN some requests to other models of the same engine, base included, fail too.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.gateway.engines.errors import AdapterRejected
from sluice.model_parts import part_of
from sluice.senses import takes_adapters, takes_adapters_of_towers

_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_EXPONENT = {
    "F32": 0x7F800000,
    "F16": 0x7C00,
    "BF16": 0x7F80,
}  # all ones: infinity or NaN (IEEE 754; bfloat16)
_MAX_HEADER = 32 * 2**20
#: Where vLLM would take LoRA, and its kernels have faults (`vllm_server.py`).
_UNTUNED = ("embed_tokens", "lm_head")
_ROOMS = ("model", "language_model")
#: Where vLLM takes LoRA, and ends at the first sound or leaves it out without a word (`vllm.py`).
_UNHEARD = ("audio_tower", "embed_audio")
#: Integers of a file, by their bytes (safetensors' words).
_WHOLE = {"I64": "q", "I32": "i"}
_MERGE = "Merge it into its base, and serve the whole weights."
_FIX = "Export the adapter again from its checkpoint, for this base."


@dataclass(frozen=True)
class Tensor:
    """One entry of a safetensors header; `start` and `end` are byte offsets in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def check_adapter(adapter_dir: Path, model_dir: Path, *, max_rank: int) -> int:
    """The adapter's rank. Raise AdapterRejected unless it is a finite LoRA of rank 1..max_rank for this base."""
    config = check_base(model_dir)
    rank = rank_of(adapter_dir / "adapter_config.json", max_rank)
    path = adapter_dir / "adapter_model.safetensors"
    tensors = read_header(path)
    if not tensors:
        raise _rejected(f"{path.name} holds no tensors.")
    base = _base_shapes(model_dir, config.get("quantization_config") or {})
    of_towers = takes_adapters_of_towers(config)
    for name, tensor in tensors.items():
        _check_part(name, of_towers)
        _check_fit(name, tensor, rank, base)
        if "quantization_config" in config and _target(name) not in base:
            raise AdapterRejected(f"Tensor {name} tunes weights of few bits whose shape no file tells.", _MERGE)
    _check_finite(path, tensors)
    return rank


def check_base(model_dir: Path) -> dict[str, Any]:
    """What the base says of itself. Raises AdapterRejected for one on which engines serve no adapters."""
    config = _config(model_dir)
    if not takes_adapters(config):
        architecture = ", ".join(map(str, config["architectures"]))
        raise AdapterRejected(f"The engine serves no adapter on a base of {architecture}.", _MERGE)
    return config


def _rejected(reason: str) -> AdapterRejected:
    return AdapterRejected(reason, _FIX)


def rank_of(path: Path, max_rank: int) -> int:
    """The rank that an adapter_config.json says. Raise AdapterRejected unless it is 1..max_rank of a plain LoRA."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind, rank = config["peft_type"], config["r"]
    except (OSError, ValueError, KeyError, TypeError) as broken:
        raise _rejected("adapter_config.json is missing or names no peft_type and r.") from broken
    if kind != "LORA" or config.get("use_dora") or config.get("modules_to_save") or config.get("rank_pattern"):
        raise AdapterRejected(
            "Only a plain LoRA adapter can be hot-loaded, without DoRA, rank_pattern or modules_to_save.",
            "Serve this version as merged weights.",
        )
    if not isinstance(rank, int) or not 1 <= rank <= max_rank:
        raise AdapterRejected(
            f"The adapter's rank {rank} is not within 1..{max_rank}.",
            "Raise SLUICE_ENGINE_MAX_LORA_RANK where it was lowered, or train one of a lower rank.",
        )
    return rank


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file whose size is what its header says. Raises AdapterRejected."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, _MAX_HEADER):
                raise ValueError
            header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = {name: _tensor(entry, 8 + length) for name, entry in header.items()}
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError) as broken:
        raise _rejected(f"{path.name} is missing or no safetensors file.") from broken
    if size != max((tensor.end for tensor in tensors.values()), default=8 + length):
        raise _rejected(f"{path.name} is truncated or has bytes its header does not name.")
    return tensors


def _tensor(entry: dict[str, Any], offset: int) -> Tensor:
    start, end = entry["data_offsets"]
    return Tensor(str(entry["dtype"]), tuple(int(axis) for axis in entry["shape"]), offset + start, offset + end)


def _config(model_dir: Path) -> dict[str, Any]:
    try:
        config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # the engine tells of it
    return config if isinstance(config, dict) else {}


def _base_shapes(model_dir: Path, quantization: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """[out, in] of each weight, by its place; of few bits that is not the shape of what is stored."""
    found = {}
    for path in model_dir.glob("*.safetensors"):
        for name, tensor in read_header(path).items():
            place, _, kind = _place(name).rpartition(".")
            match kind:
                case "weight_shape":  # compressed-tensors
                    found[f"{place}.weight"] = _numbers(path, tensor)
                case "qweight" if shape := _unpacked(tensor.shape, quantization):
                    found[f"{place}.weight"] = shape
                case _:
                    found[_place(name)] = tensor.shape
    return found


def _numbers(path: Path, tensor: Tensor) -> tuple[int, ...]:
    """The integers in a tensor. Raises AdapterRejected for one of anything else."""
    count = math.prod(tensor.shape)
    try:
        with path.open("rb") as file:
            file.seek(tensor.start)
            numbers = struct.unpack(f"<{count}{_WHOLE[tensor.dtype]}", file.read(tensor.end - tensor.start))
    except (struct.error, KeyError) as broken:
        raise _rejected(f"{path.name} of the base has a weight_shape that is none.") from broken
    return tuple(map(int, numbers))


def _unpacked(shape: tuple[int, ...], quantization: Mapping[str, Any]) -> tuple[int, ...]:
    """[out, in] of 32-bit integers that pack numbers: GPTQ packs inputs, AWQ outputs, of [in, out]; () if neither."""
    bits, method = quantization.get("bits"), quantization.get("quant_method")
    if not isinstance(bits, int) or bits < 1 or len(shape) != 2:
        return ()
    inputs, outputs = shape
    packed = {"gptq": (outputs, inputs * 32 // bits), "awq": (outputs * 32 // bits, inputs)}
    return packed.get(str(method), ())


def _place(name: str) -> str:
    """Where a weight is, however its file says it: a model that sees is saved as `model.layers…`, and its adapter says
    `model.language_model.layers…`."""
    return ".".join(part for part in name.split(".") if part not in _ROOMS)


def _target(name: str) -> str:
    """Where the weight is that a tensor of an adapter tunes."""
    target = name.removeprefix("base_model.model.")
    return _place(target.replace(".lora_A.", ".").replace(".lora_B.", "."))


def _check_part(name: str, of_towers: bool) -> None:
    """vLLM ends at the first sound with an adapter of what hears, and on bases that hear it leaves one of what sees out
    without a word (`vllm.py`)."""
    part = part_of(name)
    if any(room in _UNHEARD for room in name.split(".")):
        raise AdapterRejected(f"Tensor {name} tunes what hears.", _MERGE)
    if part != "language" and not of_towers:
        raise AdapterRejected(
            f"Tensor {name} tunes the {part} of a base that hears, where it would be ignored.", _MERGE
        )


def _check_fit(name: str, tensor: Tensor, rank: int, base: dict[str, tuple[int, ...]]) -> None:
    """lora_A is [rank, in], lora_B [out, rank] of a weight [out, in] (Hu et al. 2021, arXiv:2106.09685)."""
    if any(part in _UNTUNED for part in name.split(".")):
        raise AdapterRejected(f"Tensor {name} tunes the vocabulary's matrix.", "Serve this version as merged weights.")
    if tensor.dtype not in _BYTES or len(tensor.shape) != 2:
        raise _rejected(f"Tensor {name} is no matrix of float32, float16 or bfloat16.")
    rows, columns = tensor.shape
    weight = base.get(_target(name))
    if ".lora_A." in name:
        fits = rows == rank and (weight is None or columns == weight[-1])
    elif ".lora_B." in name:
        fits = columns == rank and (weight is None or rows == weight[0])
    else:
        raise _rejected(f"Tensor {name} is neither a lora_A nor a lora_B matrix.")
    if not fits:
        raise _rejected(f"Tensor {name} has shape [{rows}, {columns}], which does not fit rank {rank} and the base.")


def _check_finite(path: Path, tensors: dict[str, Tensor]) -> None:
    import numpy  # here, so that importing the agent stays light

    data = numpy.memmap(path, dtype=numpy.uint8, mode="r")
    for name, tensor in tensors.items():
        width, mask = _BYTES[tensor.dtype], _EXPONENT[tensor.dtype]
        if tensor.end - tensor.start != width * tensor.shape[0] * tensor.shape[1]:
            raise _rejected(f"Tensor {name} has not the number of bytes its shape says.")
        bits = numpy.frombuffer(data[tensor.start : tensor.end].tobytes(), dtype=f"<u{width}")
        if bool(((bits & mask) == mask).any()):
            raise _rejected(f"Tensor {name} holds NaN or infinity.")
