"""Checks a LoRA adapter's files before an engine sees them; knows safetensors headers and no engine.

An engine cannot be trusted with this: vLLM 0.32 serves an adapter with too small matrices without a word, and
after one that computes NaN some requests to other models of the same engine, base included, fail too.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.gateway.engines.errors import AdapterRejected

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
    rank = rank_of(adapter_dir / "adapter_config.json", max_rank)
    path = adapter_dir / "adapter_model.safetensors"
    tensors = read_header(path)
    if not tensors:
        raise _rejected(f"{path.name} holds no tensors.")
    base = _base_shapes(model_dir)
    for name, tensor in tensors.items():
        _check_fit(name, tensor, rank, base)
    _check_finite(path, tensors)
    return rank


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


def _base_shapes(model_dir: Path) -> dict[str, tuple[int, ...]]:
    return {
        _place(name): tensor.shape
        for path in model_dir.glob("*.safetensors")
        for name, tensor in read_header(path).items()
    }


def _place(name: str) -> str:
    """Where a weight is, however its file says it: a model that sees is saved as `model.layers…`, and its adapter says
    `model.language_model.layers…`."""
    return ".".join(part for part in name.split(".") if part not in _ROOMS)


def _check_fit(name: str, tensor: Tensor, rank: int, base: dict[str, tuple[int, ...]]) -> None:
    """lora_A is [rank, in], lora_B [out, rank] of a weight [out, in] (Hu et al. 2021, arXiv:2106.09685)."""
    if any(part in _UNTUNED for part in name.split(".")):
        raise AdapterRejected(f"Tensor {name} tunes the vocabulary's matrix.", "Serve this version as merged weights.")
    if tensor.dtype not in _BYTES or len(tensor.shape) != 2:
        raise _rejected(f"Tensor {name} is no matrix of float32, float16 or bfloat16.")
    rows, columns = tensor.shape
    target = name.removeprefix("base_model.model.")
    weight = base.get(_place(target.replace(".lora_A.", ".").replace(".lora_B.", ".")))
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
