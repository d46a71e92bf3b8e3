"""The real vLLM with a model that sees: pictures change its answer, and what is wrong with one is a 400."""

import base64
import hashlib
import json
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.gateway.engines import ENGINES
from services.gateway.engines.host import EngineHost
from services.gateway.engines.protocol import Sizing

numpy = pytest.importorskip("numpy")
safetensors = pytest.importorskip("safetensors.numpy")
tokenizers = pytest.importorskip("tokenizers")

pytestmark = [pytest.mark.vllm, pytest.mark.prove, pytest.mark.timeout(400)]

HIDDEN, TOWER, LAYERS, VOCAB = 64, 32, 2, 300
BASE = hashlib.sha256(b"sees").hexdigest()
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
           "<|video_pad|>"]  # fmt: skip
TEMPLATE = (
    "{%- for m in messages -%}<|im_start|>{{m.role}}\n{%- for c in m.content -%}{%- if c.type=='image' -%}"
    "<|vision_start|><|image_pad|><|vision_end|>{%- else -%}{{c.text}}{%- endif -%}{%- endfor -%}<|im_end|>\n"
    "{%- endfor -%}<|im_start|>assistant\n"
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
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}


def write_qwen2_vl(folder: Path) -> Path:
    """A random Qwen2-VL as files alone."""
    folder.mkdir()
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens": (VOCAB, HIDDEN),
        "model.norm": (HIDDEN,),
        "visual.patch_embed.proj": (TOWER, 3, 2, 14, 14),
        **{f"visual.merger.{name}": shape for name, shape in MERGER.items()},
    }
    for n in range(LAYERS):
        shapes |= {f"model.layers.{n}.{name}": shape for name, shape in TEXT.items()}
        shapes |= {f"visual.blocks.{n}.{name}": shape for name, shape in VISION.items()}
    random, weights = numpy.random.default_rng(0), {}
    for name, shape in shapes.items():
        weight = random.normal(0, 0.3, shape) if len(shape) > 1 else numpy.ones(shape)
        weights[f"{name}.weight"] = weight.astype("float32")
        of_tower = name.startswith("visual.") and "patch_embed" not in name
        if of_tower or name.endswith(("q_proj", "k_proj", "v_proj")):
            weights[f"{name}.bias"] = numpy.zeros(shape[0], "float32")
    safetensors.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for name, content in configs().items():
        (folder / name).write_text(json.dumps(content))
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["hello world"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def configs() -> dict[str, dict[str, Any]]:
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
        "rope_parameters": ROPE,
    }
    vision = {"model_type": "qwen2_vl_vision", "depth": LAYERS, "embed_dim": TOWER, "hidden_size": HIDDEN}
    vision |= {"num_heads": 2, "mlp_ratio": 2, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    ids = {name: SPECIAL.index(token) for name, token in zip(names, SPECIAL[3:], strict=True)}
    config = {"architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl", "dtype": "float32"}
    config |= {"tie_word_embeddings": True, "text_config": text, "vision_config": vision, **ids}
    patches = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    image = {"image_processor_type": "Qwen2VLImageProcessor", **patches}
    image["size"] = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    processor = {"processor_class": "Qwen2VLProcessor", "image_processor": image}
    processor["video_processor"] = {"video_processor_type": "Qwen2VLVideoProcessor", **patches}
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "processor_class": "Qwen2VLProcessor"}
    words |= {"eos_token": SPECIAL[2], "pad_token": SPECIAL[0], "chat_template": TEMPLATE}
    return {"config.json": config, "processor_config.json": processor, "tokenizer_config.json": words}


def png(width: int, height: int, shade: int = 0, rows: int | None = None) -> str:
    """A data URL; with fewer `rows` than its `height` says it is cut off."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    line = b"\0" + bytes((x * shade) % 255 for x in range(3 * width))
    pixels = zlib.compress(line * (height if rows is None else rows))
    whole = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(whole).decode()


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    host = EngineHost(tmp_path / "engines", ENGINES["vllm"], sizing=Sizing(max_model_len=512))
    try:
        running = await host.ensure(write_qwen2_vl(tmp_path / "base"), BASE, lora=True)
        headers = {"authorization": f"Bearer {running.key}", "x-model": running.model}
        async with httpx.AsyncClient(base_url=running.url, headers=headers, trust_env=False, timeout=60) as made:
            yield made
    finally:
        await host.stop(BASE)


async def see(client: httpx.AsyncClient, *urls: str) -> httpx.Response:
    parts = [{"type": "text", "text": "what?"}, *({"type": "image_url", "image_url": {"url": url}} for url in urls)]
    body = {"messages": [{"role": "user", "content": parts}], "max_tokens": 2, "temperature": 0, "logprobs": True}
    return await client.post("/v1/chat/completions", json={"model": client.headers["x-model"], **body})


async def test_vllm_sees_and_refuses_what_is_no_picture(client: httpx.AsyncClient) -> None:
    def likely(answer: httpx.Response) -> list[float]:
        assert answer.status_code == 200, answer.text[:300]
        return [token["logprob"] for token in answer.json()["choices"][0]["logprobs"]["content"]]

    one, other = likely(await see(client, png(56, 56, shade=7))), likely(await see(client, png(56, 56, shade=90)))
    assert one == pytest.approx(likely(await see(client, png(56, 56, shade=7))), abs=1e-5)
    assert one != pytest.approx(other, abs=1e-5)
    likely(await see(client, *[png(28, 28)] * 16))
    wrong = {
        "too many": [png(28, 28)] * 17,
        "fetched": ["http://127.0.0.1:1/x.png"],
        "no picture": ["data:image/png;base64,aGVsbG8="],
        "no base64": ["data:image/png;base64,!!"],
        "cut off": [png(100, 100)[:122]],
        "a bomb": [png(40_000, 40_000, rows=0)],
        "large": [png(7_000, 7_000, rows=0)],
    }
    told = {name: (await see(client, *urls)).status_code for name, urls in wrong.items()}
    assert told == dict.fromkeys(wrong, 400)
