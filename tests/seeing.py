"""A tiny Qwen2-VL written as files alone, digits drawn as images, and rows about them; it needs no torch."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy
import safetensors.numpy
import tokenizers
from PIL import Image, ImageDraw, ImageFont

HIDDEN, TOWER, LAYERS, VOCAB = 64, 64, 1, 300
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
           "<|video_pad|>"]  # fmt: skip
TEMPLATE = (
    "{%- for m in messages -%}<|im_start|>{{m.role}}\n{%- for c in m.content -%}{%- if c.type=='image' -%}"
    "<|vision_start|><|image_pad|><|vision_end|>{%- elif c.type=='video' -%}<|vision_start|><|video_pad|><|vision_end|>"
    "{%- else -%}{{c.text}}{%- endif -%}{%- endfor -%}<|im_end|>\n"
    "{%- endfor -%}{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)
TEXT = {
    "input_layernorm": (HIDDEN,),
    "post_attention_layernorm": (HIDDEN,),
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN // 2, HIDDEN),
    "self_attn.v_proj": (HIDDEN // 2, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (2 * HIDDEN, HIDDEN),
    "mlp.up_proj": (2 * HIDDEN, HIDDEN),
    "mlp.down_proj": (HIDDEN, 2 * HIDDEN),
}
VISION = {
    "norm1": (TOWER,),
    "norm2": (TOWER,),
    "attn.qkv": (3 * TOWER, TOWER),
    "attn.proj": (TOWER, TOWER),
    "mlp.fc1": (2 * TOWER, TOWER),
    "mlp.fc2": (TOWER, 2 * TOWER),
}
MERGER = {"ln_q": (TOWER,), "mlp.0": (4 * TOWER, 4 * TOWER), "mlp.2": (HIDDEN, 4 * TOWER)}
PATCH, SIDE = 14, 28


def write_qwen2_vl(folder: Path, spread: float = 0.1) -> Path:
    """A random Qwen2-VL; an image of 28 × 28 pixels, black being nothing, is one token to it."""
    folder.mkdir()
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens": (VOCAB, HIDDEN),
        "model.norm": (HIDDEN,),
        "visual.patch_embed.proj": (TOWER, 3, 2, PATCH, PATCH),
        **{f"visual.merger.{name}": shape for name, shape in MERGER.items()},
    }
    for n in range(LAYERS):
        shapes |= {f"model.layers.{n}.{name}": shape for name, shape in TEXT.items()}
        shapes |= {f"visual.blocks.{n}.{name}": shape for name, shape in VISION.items()}
    drawn, weights = numpy.random.default_rng(0), {}
    for name, shape in shapes.items():
        weight = drawn.normal(0, spread, shape) if len(shape) > 1 else numpy.ones(shape)
        weights[f"{name}.weight"] = weight.astype("float32")
        of_tower = name.startswith("visual.") and "patch_embed" not in name
        if of_tower or name.endswith(("q_proj", "k_proj", "v_proj")):
            weights[f"{name}.bias"] = numpy.zeros(shape[0], "float32")
    safetensors.numpy.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for name, content in configs().items():
        (folder / name).write_text(json.dumps(content))
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["which digit is it"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def configs() -> dict[str, dict[str, Any]]:
    """The files beside weights and tokenizer."""
    ends = {"eos_token_id": 2, "pad_token_id": 0, "bos_token_id": None}
    text = {
        "model_type": "qwen2_vl_text",
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "vocab_size": VOCAB,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
        **ends,
    }
    vision = {"model_type": "qwen2_vl_vision", "depth": LAYERS, "embed_dim": TOWER, "hidden_size": HIDDEN}
    vision |= {"num_heads": 2, "mlp_ratio": 2, "patch_size": PATCH, "spatial_merge_size": 2, "temporal_patch_size": 2}
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    ids = {name: SPECIAL.index(token) for name, token in zip(names, SPECIAL[3:], strict=True)}
    config = {"architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl", "dtype": "float32"}
    config |= {"tie_word_embeddings": True, "text_config": text, "vision_config": vision, **ids, **ends}
    patches = {"patch_size": PATCH, "merge_size": 2, "temporal_patch_size": 2}
    image = {"image_processor_type": "Qwen2VLImageProcessor", **patches, "image_mean": [0.0] * 3}
    image |= {"image_std": [0.4] * 3, "size": {"shortest_edge": SIDE * SIDE, "longest_edge": 4 * SIDE * SIDE}}
    processor = {"processor_class": "Qwen2VLProcessor", "image_processor": image}
    video = {"video_processor_type": "Qwen2VLVideoProcessor", **patches, "size": image["size"]}
    processor["video_processor"] = video | {"image_mean": image["image_mean"], "image_std": image["image_std"]}
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "processor_class": "Qwen2VLProcessor"}
    words |= {"eos_token": SPECIAL[2], "pad_token": SPECIAL[0], "chat_template": TEMPLATE}
    return {
        "config.json": config,
        "processor_config.json": processor,
        "tokenizer_config.json": words,
        "generation_config.json": {"eos_token_id": 2, "pad_token_id": 0},
    }


def digit(number: int) -> Image.Image:
    """The last digit of a number, each time of another size, place and color and with other noise."""
    drawn = random.Random(number)
    image = Image.new("RGB", (SIDE, SIDE))
    place = (SIDE // 2 + drawn.randint(-1, 1), SIDE // 2 + drawn.randint(-1, 1))
    font = ImageFont.load_default(size=drawn.choice((18, 20, 22)))
    color = tuple(drawn.randint(160, 255) for _ in range(3))
    ImageDraw.Draw(image).text(place, str(number % 10), font=font, fill=color, anchor="mm")
    noise = numpy.random.default_rng(number).normal(0, 12, (SIDE, SIDE, 3))
    return Image.fromarray((numpy.asarray(image) + noise).clip(0, 255).astype("uint8"))


#: Where the dot of a film goes, and how far, to the right and down, from one frame to the next.
WAYS = {"left": (-6, 0), "right": (6, 0), "up": (0, -6), "down": (0, 6)}


def way(number: int) -> str:
    """Where the dot of a film goes."""
    return list(WAYS)[number % 4]


def film(number: int) -> list[Image.Image]:
    """Four frames of a dot that goes one way, from another place each time; each frame alone could be of any way."""
    drawn, frames = random.Random(number), []
    right, down = WAYS[way(number)]
    across, along = (drawn.randint(4, SIDE - 5) if not step else SIDE // 2 - step * 3 // 2 for step in (right, down))
    color = tuple(drawn.randint(160, 255) for _ in range(3))
    for frame in range(4):
        image = Image.new("RGB", (SIDE, SIDE))
        x, y = across + frame * right, along + frame * down
        ImageDraw.Draw(image).ellipse((x - 3, y - 3, x + 3, y + 3), fill=color)
        frames.append(image)
    return frames


def write_films(folder: Path, start: int, count: int) -> list[list[str]]:
    """Films of numbers as PNG below `folder`; the names of the frames of each there."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [[f"{number}-{frame}.png" for frame in range(4)] for number in range(start, start + count)]
    for number, of_one in zip(range(start, start + count), names, strict=True):
        for name, frame in zip(of_one, film(number), strict=True):
            frame.save(folder / name)
    return names


def staged_films(assets: Path, start: int = 0, count: int = 100) -> list[dict[str, Any]]:
    """Canonical rows that ask where a dot goes, the frames below `assets` as an agent puts them there."""
    assets.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(start, start + count):
        names = []
        for frame in film(number):
            draft = assets / "draft.png"
            frame.save(draft)
            names.append(hashlib.sha256(draft.read_bytes()).hexdigest())
            draft.rename(assets / names[-1])
        asked = {"role": "user", "content": "<video>which way?"}
        said = {"role": "assistant", "content": way(number)}
        rows.append({"messages": [asked, said], "videos": [[f"sha256:{name}" for name in names]]})
    return rows


def write_digits(folder: Path, start: int, count: int) -> list[str]:
    """Images of the digits of numbers as PNG below `folder`; their names there."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number}.png" for number in range(start, start + count)]
    for number, name in zip(range(start, start + count), names, strict=True):
        digit(number).save(folder / name)
    return names


def staged(assets: Path, start: int = 0, count: int = 100) -> list[dict[str, Any]]:
    """Canonical rows that ask which digit an image shows, their images below `assets` as an agent puts them there."""
    assets.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(start, start + count):
        draft = assets / "draft.png"
        digit(number).save(draft)
        name = hashlib.sha256(draft.read_bytes()).hexdigest()
        draft.rename(assets / name)
        asked = {"role": "user", "content": "<image>which digit?"}
        said = {"role": "assistant", "content": str(number % 10)}
        rows.append({"messages": [asked, said], "images": [f"sha256:{name}"]})
    return rows
