"""The real vLLM through EngineHost: adapter, chat, stream, log-probabilities, stopped; killed and restored."""

import asyncio
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from services.gateway.engines import ENGINES
from services.gateway.engines.errors import AdapterRejected
from services.gateway.engines.host import EngineHost, Running
from services.gateway.engines.pids import group_alive
from services.gateway.engines.protocol import Sizing

numpy = pytest.importorskip("numpy")
safetensors = pytest.importorskip("safetensors.numpy")
tokenizers = pytest.importorskip("tokenizers")

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD, INNER, VOCAB = 64, 2, 2, 1, 32, 128, 300  # vLLM on CPU: HEAD >= 32
BASE, ADAPTER, BAD = (hashlib.sha256(name).hexdigest() for name in (b"base", b"adapter", b"bad"))
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPES = {
    "input_layernorm": (HIDDEN,),
    "post_attention_layernorm": (HIDDEN,),
    "self_attn.q_norm": (HEAD,),
    "self_attn.k_norm": (HEAD,),
    "self_attn.q_proj": (HEADS * HEAD, HIDDEN),
    "self_attn.k_proj": (KV_HEADS * HEAD, HIDDEN),
    "self_attn.v_proj": (KV_HEADS * HEAD, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HEADS * HEAD),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}


def write_base(folder: Path) -> Path:
    """A random float32 Qwen3 as files alone: torch is not wanted in this process."""
    folder.mkdir()
    shapes = {"model.embed_tokens": (VOCAB, HIDDEN), "model.norm": (HIDDEN,)}
    shapes |= {f"model.layers.{n}.{name}": shape for n in range(LAYERS) for name, shape in SHAPES.items()}
    random = numpy.random.default_rng(0)
    weights = {
        f"{name}.weight": (random.normal(0, 0.3, shape) if len(shape) == 2 else numpy.ones(shape)).astype("float32")
        for name, shape in shapes.items()
    }
    safetensors.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "dtype": "float32",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD,
        "intermediate_size": INNER,
        "vocab_size": VOCAB,
        "max_position_embeddings": 256,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=specials, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["hello world"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_lora(folder: Path, rank: int) -> Path:
    folder.mkdir()
    random = numpy.random.default_rng(rank)
    targets = [f"model.layers.{n}.self_attn.{name}_proj" for n in range(LAYERS) for name in ("q", "o")]
    pairs = {}
    for target in targets:
        pairs[f"base_model.model.{target}.lora_A.weight"] = random.normal(0, 0.5, (rank, HIDDEN)).astype("float32")
        pairs[f"base_model.model.{target}.lora_B.weight"] = random.normal(0, 0.5, (HEADS * HEAD, rank)).astype(
            "float32"
        )
    safetensors.save_file(pairs, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": ["q_proj", "o_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "task_type": "CAUSAL_LM", "bias": "none"}))
    return folder


async def chat(running: Running, **extra: object) -> httpx.Response:
    headers = {"authorization": f"Bearer {running.key}"}
    async with httpx.AsyncClient(base_url=running.url, headers=headers, trust_env=False, timeout=60) as client:
        messages = [{"role": "user", "content": "hello"}]
        body = {
            "model": running.model,
            "messages": messages,
            "max_tokens": 4,
            "temperature": 0,
            "ignore_eos": True,
        }
        return (await client.post("/v1/chat/completions", json={**body, **extra})).raise_for_status()


async def logprobs(running: Running) -> list[float]:
    answer = (await chat(running, logprobs=True)).json()
    assert answer["model"] == running.model
    return [token["logprob"] for token in answer["choices"][0]["logprobs"]["content"]]


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[EngineHost]:
    made = EngineHost(tmp_path / "engines", ENGINES["vllm"], sizing=Sizing(max_model_len=128), scratch_proof=False)
    try:
        yield made
    finally:
        await made.stop(BASE)
    assert made.list() == ()


async def test_vllm_serves_and_stops(host: EngineHost, tmp_path: Path) -> None:
    base = await host.ensure(write_base(tmp_path / "base"), BASE, lora=True)
    adapter = await host.load(write_lora(tmp_path / "lora", 8), ADAPTER, base_digest=BASE)
    assert await logprobs(adapter) != await logprobs(base)
    await check_surface(adapter)
    await check_likelihoods(adapter, base)
    with pytest.raises(AdapterRejected, match="not within"):
        await host.load(write_lora(tmp_path / "bad", 513), BAD, base_digest=BASE)


@pytest.mark.prove
async def test_vllm_takes_a_higher_rank_than_it_started_with(host: EngineHost, tmp_path: Path) -> None:
    await host.ensure(write_base(tmp_path / "base"), BASE, lora=True)
    adapter = await host.load(write_lora(tmp_path / "lora", 8), ADAPTER, base_digest=BASE)
    said = await logprobs(adapter)
    high = await host.load(write_lora(tmp_path / "high", 128), BAD, base_digest=BASE)
    assert high.url != adapter.url, "it was started anew"
    restored = next(running for running in host.list() if running.digest == ADAPTER)
    assert await logprobs(restored) == pytest.approx(said, abs=1e-5)
    assert await logprobs(high) != pytest.approx(said, abs=1e-5)


@pytest.mark.prove
async def test_vllm_survives_a_kill_with_its_adapters(host: EngineHost, tmp_path: Path) -> None:
    await host.ensure(write_base(tmp_path / "base"), BASE, lora=True)
    adapter = await host.load(write_lora(tmp_path / "lora", 8), ADAPTER, base_digest=BASE)
    said = await logprobs(adapter)
    pid = json.loads(next((tmp_path / "engines").glob("*/engine.json")).read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    await host.ensure(tmp_path / "base", BASE, lora=True)
    assert not group_alive(pid)  # the engine core of the killed server was not left behind
    restored = next(running for running in host.list() if running.digest == ADAPTER)
    assert restored.url != adapter.url
    assert await logprobs(restored) == pytest.approx(said, abs=1e-5)


async def check_likelihoods(*models: Running) -> None:
    """Prompts that are scored side by side, which vLLM's own kernel for adapters on CPUs dies of."""
    asked = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello hello"}]
    scored = {"add_generation_prompt": False, "continue_final_message": True, "prompt_logprobs": 0, "max_tokens": 1}
    alone = [(await chat(each, messages=asked, **scored)).json()["prompt_logprobs"] for each in models]
    assert alone[0] != alone[1]
    answers = await asyncio.gather(*(chat(each, messages=asked, **scored) for each in models for _ in range(8)))
    for number, answer in enumerate(answers):
        for one, other in zip(answer.json()["prompt_logprobs"][1:], alone[number // 8][1:], strict=True):
            assert {k: v["logprob"] for k, v in one.items()} == pytest.approx(
                {k: v["logprob"] for k, v in other.items()}, abs=1e-4
            )


async def check_surface(adapter: Running) -> None:
    """Streaming ends with usage and [DONE], the template counts, and no path answers without the key."""
    stream = (await chat(adapter, stream=True, stream_options={"include_usage": True})).text
    events = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    usage = json.loads(events[-2])["usage"]
    assert usage["completion_tokens"] == 4
    assert usage["prompt_tokens"] > len("hello")  # byte-level: the template's roles are in it
    async with httpx.AsyncClient(base_url=adapter.url, trust_env=False) as stranger:
        for path in ("/v1/chat/completions", "/invocations", "/adapters", "/tokenize"):
            assert (await stranger.post(path, json={"model": adapter.model, "prompt": "a"})).status_code == 401
