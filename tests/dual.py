"""A tiny CLIP written as files alone: an encoder of images of digits and one of texts; it needs no torch."""

import json
from pathlib import Path
from typing import Any

import numpy
import safetensors.numpy
import tokenizers

WIDTH, LAYERS, VOCAB, POSITIONS = 64, 1, 300, 24
SIDE, PATCH = 28, 7
START, END, UNKNOWN = "<|startoftext|>", "<|endoftext|>", "!"
LAYER = {
    "layer_norm1": (WIDTH,),
    "layer_norm2": (WIDTH,),
    **{f"self_attn.{name}_proj": (WIDTH, WIDTH) for name in ("q", "k", "v", "out")},
    "mlp.fc1": (2 * WIDTH, WIDTH),
    "mlp.fc2": (WIDTH, 2 * WIDTH),
}


def write_clip(folder: Path, spread: float = 0.1) -> Path:
    """A random CLIP for images of 28 × 28 pixels and texts of 24 tokens."""
    folder.mkdir()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=VOCAB - 2, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["is it odd", "is it even"], trainer)
    tokenizer.add_special_tokens([START, END])  # after all others: the end has the highest number, which CLIP reads at
    start, end = (tokenizer.token_to_id(token) for token in (START, END))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, start), (END, end)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_weights(folder, tokenizer.get_vocab_size(), spread)
    for name, content in configs(tokenizer.get_vocab_size(), start, end).items():
        (folder / name).write_text(json.dumps(content))
    return folder


def _write_weights(folder: Path, words: int, spread: float) -> None:
    drawn, weights = numpy.random.default_rng(0), {}
    for encoder, norms in {
        "text_model": ("final_layer_norm",),
        "vision_model": ("pre_layrnorm", "post_layernorm"),
    }.items():
        shapes: dict[str, tuple[int, ...]] = {
            f"{encoder}.encoder.layers.{n}.{name}": shape for n in range(LAYERS) for name, shape in LAYER.items()
        }
        for name, shape in {**shapes, **{f"{encoder}.{norm}": (WIDTH,) for norm in norms}}.items():
            weights[f"{name}.weight"] = drawn.normal(0, spread, shape) if len(shape) > 1 else numpy.ones(shape)
            weights[f"{name}.bias"] = numpy.zeros(shape[0])
    alone = {
        "text_model.embeddings.token_embedding.weight": (words, WIDTH),
        "text_model.embeddings.position_embedding.weight": (POSITIONS, WIDTH),
        "vision_model.embeddings.class_embedding": (WIDTH,),
        "vision_model.embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        "vision_model.embeddings.position_embedding.weight": ((SIDE // PATCH) ** 2 + 1, WIDTH),
        "text_projection.weight": (WIDTH, WIDTH),
        "visual_projection.weight": (WIDTH, WIDTH),
    }
    weights |= {name: drawn.normal(0, spread, shape) for name, shape in alone.items()}
    weights["logit_scale"] = numpy.array(2.6592)
    floats = {name: weight.astype("float32") for name, weight in weights.items()}
    safetensors.numpy.save_file(floats, folder / "model.safetensors", metadata={"format": "pt"})


def configs(words: int, start: int, end: int) -> dict[str, dict[str, Any]]:
    """The files beside weights and tokenizer."""
    both = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": LAYERS, "projection_dim": WIDTH}
    both |= {"num_attention_heads": 2, "hidden_act": "quick_gelu"}
    ends = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
    text = {"model_type": "clip_text_model", "vocab_size": words, "max_position_embeddings": POSITIONS, **both, **ends}
    vision = {"model_type": "clip_vision_model", "image_size": SIDE, "patch_size": PATCH, **both}
    config = {"architectures": ["CLIPModel"], "model_type": "clip", "dtype": "float32", "projection_dim": WIDTH}
    config |= {"text_config": text, "vision_config": vision}
    size = {"height": SIDE, "width": SIDE}
    image = {"image_processor_type": "CLIPImageProcessor", "image_mean": [0.0] * 3, "image_std": [0.4] * 3}
    image |= {"size": {"shortest_edge": SIDE}, "crop_size": size, "do_convert_rgb": True}
    words_about = {"tokenizer_class": "PreTrainedTokenizerFast", "processor_class": "CLIPProcessor"}
    words_about |= {"bos_token": START, "eos_token": END, "pad_token": END, "model_max_length": POSITIONS}
    return {
        "config.json": config,
        "preprocessor_config.json": image,
        "tokenizer_config.json": words_about,
    }
