"""Whether files are the weights of a model, told by their own bytes: headers, index and config; it loads no tensor.

What may carry code is refused: pickles in any clothes, and configs that name code of their own. Client and registry
look alike, so that a folder is refused before it is sent, and again by who stores it.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

from kit.rpc.errors import Invalid
from sluice.errors import v1 as errors

#: A header larger than this describes no model (safetensors' own limit is 100 MB).
HEADER_LIMIT = 32 * 1024 * 1024
#: A .json file of a model larger than this is none; the largest there are, those of tokenizers, have half of it.
JSON_LIMIT = 64 * 1024 * 1024
#: More dimensions than this has no tensor (numpy's own limit), and more digits no number of a layer.
DIMENSIONS, DIGITS = 64, 6
#: Bits of one element, of every kind that safetensors 0.6 writes.
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16}
BITS |= {"BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F4": 4}
BITS |= {"F6_E2M3": 6, "F6_E3M2": 6}
#: How files begin that torch or pickle would run on reading: protocols 2 to 5, and the archives of `torch.save`.
RUNS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
INDEX = "model.safetensors.index.json"
EMBEDDING = re.compile(r"(^|\.)(embed_tokens|word_embeddings|wte|embed_in)\.weight$")
LAYER = re.compile(r"(?:^|\.)(?:layers|h|layer)\.(\d+)\.")

#: The tensors of a file by name: kind and shape, the shape with as many numbers as the tensor has dimensions.
Tensors = Mapping[str, tuple[str, tuple[int, ...]]]


def tensors_of(file: BinaryIO, size: int, name: str) -> Tensors:
    """What a `.safetensors` file of ``size`` bytes says it holds. Raises Invalid (MODEL_REJECTED) where it does not.

    The format: eight bytes with the length of a header in JSON, the header, then the tensors without a gap
    (https://github.com/huggingface/safetensors#format).
    """
    (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
    if length > min(size - 8, HEADER_LIMIT):
        raise _no_safetensors(name)
    found, places = {}, []
    try:
        for key, tensor in json.loads(file.read(length)).items():
            if key == "__metadata__":
                continue
            kind, shape, (start, end) = tensor["dtype"], tuple(tensor["shape"]), tensor["data_offsets"]
            if len(shape) > DIMENSIONS or any(type(long) is not int or not 0 <= long <= size * 8 for long in shape):
                raise ValueError(key)  # before it is multiplied, which could take for ever
            if math.prod(shape) * BITS[kind] != (end - start) * 8:
                raise ValueError(key)
            found[key] = (kind, shape)
            places.append((start, end))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise _no_safetensors(name) from None
    ends = [0]
    for start, end in sorted(places):
        if start != ends[-1]:
            raise _no_safetensors(name)
        ends.append(end)
    if ends[-1] != size - 8 - length:
        raise _no_safetensors(name)
    return found


def check_beginning(beginning: bytes, name: str) -> None:
    """Raises Invalid for a file, whatever its name, that begins as what runs code when it is read."""
    if beginning.startswith(RUNS):
        raise rejected(
            f"`{name}` is a pickle or an archive inside, which runs code when it is read; leave it out, and save "
            "weights with `model.save_pretrained(…, safe_serialization=True)`"
        )


def check_size(name: str, size: int) -> None:
    """Raises Invalid for a .json file of so many bytes that reading it would be the work of an attack."""
    if name.endswith(".json") and size > JSON_LIMIT:
        raise rejected(f"`{name}` has {size} bytes, and no .json of a model has more than {JSON_LIMIT}; leave it out")


def config_of(content: bytes, name: str) -> dict[str, Any]:
    """The fields of a JSON file. Raises Invalid for what is no JSON object, and for one that names code of its own."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise rejected(f"`{name}` is no JSON; fetch it again from where it came from") from None
    if not isinstance(found, dict):
        return {}  # a list of tokens, for one
    if name.endswith("config.json") and "auto_map" in found:
        raise rejected(
            f"`{name}` asks for code that comes with the model (`auto_map`), which Sluice never runs; take a release "
            "that transformers loads by itself (of Qwen, those from Qwen1.5 on), or one converted to it (often `…-hf`)"
        )
    return found


def check_whole(configs: Mapping[str, Mapping[str, Any]], shards: Mapping[str, Tensors]) -> None:
    """Raises Invalid where the weights are not those that index and config tell of; what these do not say, holds.

    ``configs`` are the JSON files and ``shards`` the safetensors files, each by its path.
    """
    if INDEX in configs:
        _check_index(configs[INDEX].get("weight_map"), shards)
    config = configs.get("config.json")
    if config and "quantization_config" not in config:
        text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
        _check_shapes(dict(text or {}), {key: value for shard in shards.values() for key, value in shard.items()})


def _check_index(weight_map: Any, shards: Mapping[str, Tensors]) -> None:
    if not isinstance(weight_map, dict):
        raise rejected(f"`{INDEX}` has no `weight_map`; fetch it again from where it came from")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str):
            raise rejected(f"`{INDEX}` names no file for `{tensor}`; fetch it again from where it came from")
        if shard not in shards:
            raise rejected(f"`{INDEX}` names `{shard}`, which is not there; fetch what is missing")
        if tensor not in shards[shard]:
            raise rejected(f"`{shard}` lacks `{tensor}`, which `{INDEX}` says it has; fetch both again")


def _check_shapes(config: dict[str, Any], tensors: Tensors) -> None:
    width = config.get("embedding_size") or config.get("word_embed_proj_dim") or config.get("hidden_size")
    vocabulary, layers = config.get("vocab_size"), config.get("num_hidden_layers")
    for name, (_, shape) in tensors.items():
        if EMBEDDING.search(name) and vocabulary and width and shape != (vocabulary, width):
            said = " × ".join(map(str, shape))
            raise rejected(
                f"`{name}` has {said} numbers, and config.json says {vocabulary} × {width} (vocabulary × width); "
                "these are files of two models, so fetch them again"
            )
    numbers = {found[1] for name in tensors if (found := LAYER.search(name))}
    if any(len(number) > DIGITS for number in numbers):
        raise rejected(f"the weights number a layer with more than {DIGITS} digits; fetch them again")
    there = {int(number) for number in numbers}
    if there and isinstance(layers, int) and min(there) == 0 and sum(number < layers for number in there) < layers:
        raise rejected(
            f"the weights have {len(there)} layers, and config.json says {layers}; fetch the files that are missing"
        )


def rejected(message: str) -> Invalid:
    """For files that are not taken for a model."""
    return Invalid(message, reason=errors.ERROR_REASON_MODEL_REJECTED)


def _no_safetensors(name: str) -> Invalid:
    return rejected(f"`{name}` is not a safetensors file inside; save the weights with safetensors")
