"""Tiny model and adapter folders of the standard library alone; only the fake engine makes sense of them."""

import json
import struct
from pathlib import Path
from typing import Any

_TARGET = "model.layers.0.self_attn.q_proj"


def write_model(folder: Path, *, hidden: int = 8, **more: Any) -> Path:
    """A folder that passes for a base: config.json, to which `more` adds, and one float32 weight [hidden, hidden]."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "qwen3", "dtype": "float32", "max_position_embeddings": 1024, **more}
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(folder / "model.safetensors", {f"{_TARGET}.weight": (hidden, hidden)})
    return folder


def write_adapter(folder: Path, *, rank: int = 4, hidden: int = 8, value: float = 0.5, **config: Any) -> Path:
    """A LoRA adapter folder for `write_model`; `config` adds to its JSON (`fake_poison`, `fake_crash`, …)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, **config}))
    prefix = f"base_model.model.{_TARGET}"
    shapes = {f"{prefix}.lora_A.weight": (rank, hidden), f"{prefix}.lora_B.weight": (hidden, rank)}
    write_safetensors(folder / "adapter_model.safetensors", shapes, value)
    return folder


def write_safetensors(path: Path, shapes: dict[str, tuple[int, int]], value: float = 0.5) -> None:
    """A float32 safetensors file whose every element is `value`."""
    header, data = {}, b""
    for name, (rows, columns) in shapes.items():
        block = struct.pack("<f", value) * (rows * columns)
        header[name] = {
            "dtype": "F32",
            "shape": [rows, columns],
            "data_offsets": [len(data), len(data) + len(block)],
        }
        data += block
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
