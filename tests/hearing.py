"""A tiny Qwen3-ASR written as files alone, melodies of pure tones as sounds, and rows about them; it needs no torch."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy
import safetensors.numpy
import soundfile
import tokenizers

HIDDEN, TOWER, CHANNELS, MELS, LAYERS, VOCAB = 64, 64, 8, 32, 1, 300
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_start|>", "<|audio_end|>", "<|audio_pad|>"]
TEMPLATE = (
    "{%- for m in messages -%}<|im_start|>{{m.role}}\n{%- if m.content is string -%}{{m.content}}{%- else -%}"
    "{%- for c in m.content -%}{%- if c.type=='audio' -%}<|audio_start|><|audio_pad|><|audio_end|>{%- else -%}"
    "{{c.text}}{%- endif -%}{%- endfor -%}{%- endif -%}<|im_end|>\n"
    "{%- endfor -%}{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)
RATE = 16_000
#: Words and the tones that they are, in Hz.
NOTES = {"do": 300.0, "re": 600.0, "mi": 1200.0, "fa": 2400.0}
_TEXT = {
    "input_layernorm": (HIDDEN,),
    "post_attention_layernorm": (HIDDEN,),
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN // 2, HIDDEN),
    "self_attn.v_proj": (HIDDEN // 2, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "self_attn.q_norm": (HIDDEN // 2,),
    "self_attn.k_norm": (HIDDEN // 2,),
    "mlp.gate_proj": (2 * HIDDEN, HIDDEN),
    "mlp.up_proj": (2 * HIDDEN, HIDDEN),
    "mlp.down_proj": (HIDDEN, 2 * HIDDEN),
}
_TOWER = {
    **{f"self_attn.{name}_proj": (TOWER, TOWER) for name in ("q", "k", "v", "out")},
    "self_attn_layer_norm": (TOWER,),
    "final_layer_norm": (TOWER,),
    "fc1": (2 * TOWER, TOWER),
    "fc2": (TOWER, 2 * TOWER),
}
_FRONT = {
    "conv2d1": (CHANNELS, 1, 3, 3),
    "conv2d2": (CHANNELS, CHANNELS, 3, 3),
    "conv2d3": (CHANNELS, CHANNELS, 3, 3),
    "conv_out": (TOWER, CHANNELS * MELS // 8),
    "ln_post": (TOWER,),
}


def write_qwen3_asr(folder: Path, spread: float = 0.1) -> Path:
    """A random Qwen3-ASR; a second is 13 tokens to it."""
    folder.mkdir()
    shapes: dict[str, tuple[int, ...]] = {
        "model.language_model.embed_tokens": (VOCAB, HIDDEN),
        "model.language_model.norm": (HIDDEN,),
        "model.multi_modal_projector.linear_1": (TOWER, TOWER),
        "model.multi_modal_projector.linear_2": (HIDDEN, TOWER),
        **{f"model.audio_tower.{name}": shape for name, shape in _FRONT.items()},
    }
    for n in range(LAYERS):
        shapes |= {f"model.language_model.layers.{n}.{name}": shape for name, shape in _TEXT.items()}
        shapes |= {f"model.audio_tower.layers.{n}.{name}": shape for name, shape in _TOWER.items()}
    drawn, weights = numpy.random.default_rng(0), {}
    for name, shape in shapes.items():
        weight = drawn.normal(0, spread, shape) if len(shape) > 1 else numpy.ones(shape)
        weights[f"{name}.weight"] = weight.astype("float32")
        if "language_model" not in name and "conv_out" not in name:
            weights[f"{name}.bias"] = numpy.zeros(shape[0], "float32")
    safetensors.numpy.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for name, content in configs().items():
        (folder / name).write_text(json.dumps(content))
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["which notes are these", "do re mi fa do re mi fa"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def configs() -> dict[str, dict[str, Any]]:
    """The files beside weights and tokenizer."""
    ends = {"eos_token_id": 2, "pad_token_id": 0, "bos_token_id": None}
    text = {
        "model_type": "qwen3",
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": HIDDEN // 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "vocab_size": VOCAB,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        **ends,
    }
    tower = {
        "model_type": "qwen3_asr_encoder",
        "num_mel_bins": MELS,
        "encoder_layers": LAYERS,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 2 * TOWER,
        "d_model": TOWER,
        "n_window": 50,
        "n_window_infer": 800,
        "output_dim": HIDDEN,
        "downsample_hidden_size": CHANNELS,
    }
    config = {"architectures": ["Qwen3ASRForConditionalGeneration"], "model_type": "qwen3_asr", "dtype": "float32"}
    config |= {"tie_word_embeddings": True, "text_config": text, "audio_config": tower, **ends}
    config |= {"audio_token_id": SPECIAL.index("<|audio_pad|>"), "timestamp_token_id": VOCAB - 1}
    hears = {"feature_extractor_type": "Qwen3ASRFeatureExtractor", "feature_size": MELS, "sampling_rate": RATE}
    hears |= {"chunk_length": 4, "hop_length": 160, "n_fft": 400, "n_window": 50, "min_length": RATE // 2}
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "processor_class": "Qwen3ASRProcessor"}
    words |= {"eos_token": SPECIAL[2], "pad_token": SPECIAL[0], "chat_template": TEMPLATE}
    words |= {"audio_bos_token": SPECIAL[3], "audio_eos_token": SPECIAL[4], "audio_token": SPECIAL[5]}
    return {
        "config.json": config,
        "processor_config.json": {"processor_class": "Qwen3ASRProcessor", "feature_extractor": hears},
        "tokenizer_config.json": words,
        "generation_config.json": {"eos_token_id": 2, "pad_token_id": 0},
    }


def said(number: int) -> str:
    """The two words of a melody."""
    words = list(NOTES)
    return f"{words[number % 4]} {words[number // 4 % 4]}"


def write_melody(file: Path, number: int) -> None:
    """1.2 s of two tones as WAV, each time of other loudness and pitch and with other noise; of every third
    number in stereo at another rate.
    """
    drawn = numpy.random.default_rng(number)
    rate, channels = (22_050, 2) if number % 3 == 0 else (RATE, 1)
    times = numpy.arange(rate * 6 // 10) / rate
    tones = [
        drawn.uniform(0.2, 0.5) * numpy.sin(2 * numpy.pi * NOTES[word] * drawn.uniform(0.95, 1.05) * times)
        for word in said(number).split()
    ]
    samples = numpy.concatenate(tones) + drawn.normal(0, 0.01, 2 * len(times))
    with file.open("wb") as sink:
        soundfile.write(sink, numpy.repeat(samples[:, None], channels, 1), rate, "PCM_16", format="WAV")


def write_melodies(folder: Path, start: int, count: int) -> list[str]:
    """Melodies of numbers as WAV below `folder`; their names there."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        write_melody(folder / f"{number}.wav", number)
    return [f"{number}.wav" for number in range(start, start + count)]


def staged(assets: Path, start: int = 0, count: int = 100) -> list[dict[str, Any]]:
    """Canonical rows that ask for the words of a melody, with the sounds below `assets` as an agent puts them there."""
    assets.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(start, start + count):
        draft = assets / "draft.wav"
        write_melody(draft, number)
        name = hashlib.sha256(draft.read_bytes()).hexdigest()
        draft.rename(assets / name)
        asked = {"role": "user", "content": "<audio>which notes?"}
        rows.append({"messages": [asked, {"role": "assistant", "content": said(number)}], "audios": [f"sha256:{name}"]})
    return rows
