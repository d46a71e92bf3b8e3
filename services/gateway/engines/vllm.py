"""vLLM as an engine: argument vector, environment and readiness; imports neither torch nor vllm."""

import json
import sys
from pathlib import Path

import httpx

from services.gateway.engines.adapter_files import read_header
from services.gateway.engines.errors import AdapterRejected, EngineError
from services.gateway.engines.fuse_classes import check_head
from services.gateway.engines.inner import FOLDER, LONGEST
from services.gateway.engines.openai_http import load_lora, prove, unload_lora
from services.gateway.engines.protocol import Capability, Command, Launch, Task
from sluice.fusion import HEAD
from sluice.senses import MOST, MOST_FRAMES, takes, takes_adapters, takes_adapters_of_towers

_SERVER = "services.gateway.engines.vllm_server"
_KEY_CHECK = "services.gateway.engines.require_key.RequireKey"
_ENTITIES = "services.gateway.engines.name_entities.NameEntities"
_FUSED = "services.gateway.engines.fuse_classes.FuseClasses"
_SOURCE_ROOT = Path(__file__).resolve().parents[3]
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the values vllm.config.lora.MaxLoRARanks allows
_RUNNER: dict[Task, str] = {
    "generate": "generate",
    **dict.fromkeys(("embed", "classify", "score", "tag"), "pooling"),
}
_FLOATS = ("F32", "F16", "BF16", "F64")
#: vLLM leaves out the frames after 32 without a word, and reads sounds with whatever it finds first.
_DECODING = {"video": {"num_frames": MOST_FRAMES}, "audio": {"audio_backend": "soundfile"}}
_IMAGE_PIXELS = 32 * 2**20
_MEDIA_CACHE_GIB = "0.25"  # vLLM takes 4 GiB of host memory otherwise


class VllmEngine:
    """vLLM, on CPU or GPU."""

    name = "vllm"
    capabilities: frozenset[Capability] = frozenset(
        {
            "chat",
            "completions",
            "streaming",
            "logprobs",
            "lora",
            "images",
            "sounds",
            "embeddings",
            "classify",
            "rerank",
            "entities",
        }
    )

    def command(self, launch: Launch) -> Command:
        config = _config(launch.model_dir)
        argv = [sys.executable, "-P", "-m", _SERVER, "--model", str(launch.model_dir)]
        argv += ["--served-model-name", launch.model, "--host", "127.0.0.1", "--port", str(launch.port)]
        argv += ["--runner", _RUNNER[launch.task], "--dtype", _dtype(launch.model_dir, config, launch.sizing.dtype)]
        argv += ["--max-model-len", str(_max_model_len(launch, config))]
        argv += ["--max-num-seqs", str(launch.sizing.max_concurrent)]
        if middleware := _middleware(launch):
            if middleware == _FUSED:
                check_head(launch.model_dir, config)
            argv += ["--middleware", middleware]  # the last one is the outermost
        argv += [
            "--middleware",
            _KEY_CHECK,
            "--disable-uvicorn-access-log",
            "--disable-fastapi-docs",
        ]
        lora = launch.lora and takes_adapters(config)  # else it would not start; `load_adapter` has no path there
        argv += ["--no-enable-log-requests", *_media(config, lora)]
        if launch.sizing.device == "cpu":
            argv += ["--enforce-eager", "--kv-cache-memory-bytes", str(launch.sizing.kv_cache_bytes)]
        if lora:
            rank = next((rank for rank in _RANKS if rank >= launch.lora_rank), None)
            if rank is None:
                raise EngineError(f"vLLM serves no LoRA rank of {launch.lora_rank}.", "Use at most 512.")
            argv += [
                "--enable-lora",
                "--max-lora-rank",
                str(rank),
                "--max-loras",
                str(launch.sizing.max_loras),
            ]
        env = _environment(launch)
        if middleware:
            env |= {FOLDER: str(launch.model_dir), LONGEST: str(_max_model_len(launch, config))}
        return Command(tuple(argv), env)

    async def ready(self, client: httpx.AsyncClient, task: Task, model: str) -> None:
        await prove(client, task, model)

    async def load_adapter(self, client: httpx.AsyncClient, name: str, path: Path) -> None:
        await load_lora(client, name, path)

    async def unload_adapter(self, client: httpx.AsyncClient, name: str) -> None:
        await unload_lora(client, name)


def _middleware(launch: Launch) -> str:
    """What answers in the engine's stead, where that gives less than is asked for; empty where it gives all."""
    if launch.task == "classify" and (launch.model_dir / HEAD).is_dir():
        return _FUSED
    return _ENTITIES if launch.task == "tag" else ""


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
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_MAX_IMAGE_PIXELS": str(_IMAGE_PIXELS),
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
    if not (model_dir / "config.json").exists():
        raise EngineError(f"{model_dir.name} holds no config.json.", "Give a folder that save_pretrained wrote.")
    return _object(model_dir / "config.json")


def _object(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as broken:
        raise EngineError(f"{path.name} of {path.parent.name} is no JSON.", "Export the model again.") from broken
    if not isinstance(found, dict):
        raise EngineError(f"{path.name} of {path.parent.name} is no JSON object.", "Export the model again.")
    return found


def _text(config: dict[str, object]) -> dict[str, object]:
    """The language model's part of a config; multimodal models nest it."""
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def _media(config: dict[str, object], lora: bool) -> list[str]:
    """Flags for what comes beside text. A URL in a request would be fetched by the engine, so no domain is allowed."""
    flags = ["--allowed-media-domains", "none.invalid"]  # RFC 6761: never a host
    senses = takes(config)
    if limits := {sense: most for sense, most in MOST.items() if sense in senses}:
        flags += ["--limit-mm-per-prompt", json.dumps(limits), "--mm-processor-cache-gb", _MEDIA_CACHE_GIB]
        flags += ["--media-io-kwargs", json.dumps(_DECODING)]
    if limits and lora and takes_adapters_of_towers(config):
        flags.append("--enable-tower-connector-lora")  # else an adapter's part for the tower is ignored silently
    return flags


def _dtype(model_dir: Path, config: dict[str, object], wanted: str) -> str:
    if wanted != "auto":
        return wanted
    if "quantization_config" in config:
        return "bfloat16"  # in float32 a quantized model starts and dies on its first request
    for part in (config, _text(config)):
        named = part.get("dtype") or part.get("torch_dtype")
        if isinstance(named, str):
            return named
    return "float32" if _stored_dtype(model_dir) == "F32" else "auto"  # vLLM would halve it by itself


def _stored_dtype(model_dir: Path) -> str:
    """The dtype of the first tensor of floats (older BERTs store their positions too), in safetensors' words; "" where
    no file says one, and then the engine tells why.
    """
    files = sorted(model_dir.glob("*.safetensors"))
    try:
        tensors = read_header(files[0]) if files else {}
    except AdapterRejected:
        return ""
    return next((each.dtype for each in tensors.values() if each.dtype in _FLOATS), "")


def _max_model_len(launch: Launch, config: dict[str, object]) -> int:
    """Tokens: the least of the limit and of what the model's files say. vLLM starts with no more than these."""
    folder = launch.model_dir
    said = [_text(config).get("max_position_embeddings")]
    said.append(_optional(folder / "sentence_bert_config.json").get("max_seq_length"))
    if launch.task != "generate":  # where sentence-transformers cuts, 6 and later say it here alone
        said.append(_optional(folder / "tokenizer_config.json").get("model_max_length"))
    return min([launch.sizing.max_model_len, *(own for own in said if isinstance(own, int) and own > 0)])


def _optional(path: Path) -> dict[str, object]:
    """A JSON object that a model may come without."""
    return _object(path) if path.exists() else {}
