"""vLLM as an engine: argument vector, environment and readiness; imports neither torch nor vllm."""

import json
import sys
from pathlib import Path

import httpx

from services.gateway.engines.errors import EngineError
from services.gateway.engines.openai_http import load_lora, prove, unload_lora
from services.gateway.engines.protocol import Capability, Command, Launch, Task

_SERVER = "services.gateway.engines.vllm_server"
_KEY_CHECK = "services.gateway.engines.require_key.RequireKey"
_SOURCE_ROOT = Path(__file__).resolve().parents[3]
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the values vllm.config.lora.MaxLoRARanks allows
_RUNNER: dict[Task, str] = {"generate": "generate", "embed": "pooling", "classify": "pooling"}


class VllmEngine:
    """vLLM, on CPU or GPU."""

    name = "vllm"
    capabilities: frozenset[Capability] = frozenset(
        {"chat", "completions", "streaming", "logprobs", "lora", "embeddings", "classify"}
    )

    def command(self, launch: Launch) -> Command:
        config = _config(launch.model_dir)
        argv = [sys.executable, "-P", "-m", _SERVER, "--model", str(launch.model_dir)]
        argv += ["--served-model-name", launch.model, "--host", "127.0.0.1", "--port", str(launch.port)]
        argv += ["--runner", _RUNNER[launch.task], "--dtype", _dtype(config, launch.sizing.dtype)]
        argv += ["--max-model-len", str(_max_model_len(config, launch.sizing.max_model_len))]
        argv += ["--max-num-seqs", str(launch.sizing.max_concurrent)]
        argv += [
            "--middleware",
            _KEY_CHECK,
            "--disable-uvicorn-access-log",
            "--disable-fastapi-docs",
        ]
        argv += ["--no-enable-log-requests"]
        if launch.sizing.device == "cpu":
            argv += ["--enforce-eager", "--kv-cache-memory-bytes", str(launch.sizing.kv_cache_bytes)]
        if launch.lora:
            rank = next((rank for rank in _RANKS if rank >= launch.sizing.max_lora_rank), None)
            if rank is None:
                raise EngineError(f"vLLM serves no LoRA rank of {launch.sizing.max_lora_rank}.", "Use at most 512.")
            argv += [
                "--enable-lora",
                "--max-lora-rank",
                str(rank),
                "--max-loras",
                str(launch.sizing.max_loras),
            ]
        return Command(tuple(argv), _environment(launch))

    async def ready(self, client: httpx.AsyncClient, task: Task, model: str) -> None:
        await prove(client, task, model)

    async def load_adapter(self, client: httpx.AsyncClient, name: str, path: Path) -> None:
        await load_lora(client, name, path)

    async def unload_adapter(self, client: httpx.AsyncClient, name: str) -> None:
        await unload_lora(client, name)


def _environment(launch: Launch) -> dict[str, str]:
    # The scrubbed environment drops PYTHONDONTWRITEBYTECODE too, under which every start compiles anew.
    env = {
        "PYTHONPATH": str(_SOURCE_ROOT),
        "VLLM_API_KEY": launch.key,
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_CACHE_ROOT": str(launch.cache_dir / "vllm"),
        "VLLM_CONFIG_ROOT": str(launch.cache_dir / "vllm"),
        "VLLM_PLUGINS": "",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_MAX_N_SEQUENCES": "128",  # as OpenAI has it; 16384 answers to one question keep all others waiting
        "DO_NOT_TRACK": "1",
        "HF_HOME": str(launch.cache_dir / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    if launch.lora:
        env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    if launch.sizing.device == "cpu":
        # The CPU worker runs inside the engine core then, instead of in a third process (10 s to import).
        env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        env["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"  # several engines share the cores
        env["OMP_NUM_THREADS"] = str(launch.sizing.threads)
        env["TORCHDYNAMO_DISABLE"] = "1"  # else the first request with logprobs compiles C++ for 20 s
    return env


def _config(model_dir: Path) -> dict[str, object]:
    path = model_dir / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EngineError(
            f"{model_dir.name} holds no config.json.", "Give a folder that save_pretrained wrote."
        ) from None
    except ValueError as broken:
        raise EngineError(f"config.json of {model_dir.name} is no JSON.", "Export the model again.") from broken
    if not isinstance(config, dict):
        raise EngineError(f"config.json of {model_dir.name} is no JSON object.", "Export the model again.")
    return config


def _text(config: dict[str, object]) -> dict[str, object]:
    """The language model's part of a config; multimodal models nest it."""
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def _dtype(config: dict[str, object], wanted: str) -> str:
    if wanted != "auto":
        return wanted
    if "quantization_config" in config:
        return "bfloat16"  # in float32 a quantized model starts and dies on its first request
    for part in (config, _text(config)):
        named = part.get("dtype") or part.get("torch_dtype")
        if isinstance(named, str):
            return named
    return "auto"


def _max_model_len(config: dict[str, object], limit: int) -> int:
    own = _text(config).get("max_position_embeddings")
    return min(limit, own) if isinstance(own, int) else limit
