"""Folders of weights for tests: a config, and safetensors files of as many bytes as wanted."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BYTES = {"U8": 1, "F16": 2, "F32": 4}


def safetensors(size: int = 4, mark: int = 0, **shapes: tuple[int, ...]) -> bytes:
    """A sound file with one tensor `w` of ``size`` bytes, or tensors of float16 of these shapes."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in (shapes or {"w": (size,)}).items():
        kind, count = ("F16" if shapes else "U8"), 1
        for length in shape:
            count *= length
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + count * BYTES[kind]]}
        end += count * BYTES[kind]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes([mark]) * end


def folder_of(folder: Path, size: int = 4, mark: int = 0, config: Mapping[str, Any] | None = None) -> Path:
    """A folder that can be imported as complete weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "tiny", "mark": mark, **(config or {})}))
    (folder / "model.safetensors").write_bytes(safetensors(size, mark))
    return folder
