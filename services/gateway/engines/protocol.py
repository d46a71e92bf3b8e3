"""The engine plug point: what an engine file must say; knows no process, no folder layout and no digest."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import httpx

Capability = Literal[
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
]
#: What an engine does with a model; one engine does one of them. `score` ranks texts by a query, `tag` names spans.
Task = Literal["generate", "embed", "classify", "score", "tag"]


@dataclass(frozen=True)
class Sizing:
    """How much of the host one engine may take; process settings of the agent, passed by value."""

    device: Literal["cpu", "cuda"] = "cpu"
    dtype: str = "auto"  # auto: the dtype the model's config names, bfloat16 for a quantized model
    max_model_len: int = 4096  # tokens; a shorter context in the model's config wins
    max_concurrent: int = 16  # requests decoded in one batch
    lora_rank: int = 64  # an engine starts for adapters of this rank: its memory for them grows with it
    max_lora_rank: int = 512  # and starts anew for one of a higher, up to this
    max_loras: int = 4  # different adapters in one batch
    threads: int = 2  # CPU only
    kv_cache_bytes: int = 256 * 2**20  # CPU only; a GPU engine sizes its cache itself


DEFAULT_SIZING = Sizing()


@dataclass(frozen=True)
class Launch:
    """One engine to start: which model, under which name, where it listens and who may call it."""

    model_dir: Path
    model: str
    port: int
    key: str = field(repr=False)
    cache_dir: Path
    task: Task = "generate"
    lora: bool = False
    lora_rank: int = 0  # with `lora`: the highest rank that it shall take
    sizing: Sizing = DEFAULT_SIZING

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Command:
    """An argument vector, and what joins a scrubbed environment; secrets go in `env`, never in `argv`."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)


class Engine(Protocol):
    """One inference server program, started as a child process and spoken to in OpenAI HTTP.

    Contract, held by `tests/unit/gateway/test_engines_conformance.py` for every entry of `ENGINES`:

    - The program listens on 127.0.0.1:`launch.port` only, refuses every path without `launch.key`, serves the
      model as `launch.model`, reaches no network, and leaves with its children on SIGTERM to its group.
    - `client` is an `httpx.AsyncClient` whose base URL and bearer key are the engine's.
    - Verbs are idempotent; heavy imports happen in the child, never here.
    """

    name: str
    capabilities: frozenset[Capability]

    def command(self, launch: Launch) -> Command:
        """The command that serves `launch`. Raises EngineError for a model or sizing it cannot serve."""

    async def ready(self, client: httpx.AsyncClient, task: Task, model: str) -> None:
        """Send one real request to `model`, base or adapter, and check that its figures are finite.

        Raises NotReady while nothing listens or the server says 503, WrongKind when it serves the model but not for
        `task`, EngineError when it answers but wrongly.
        """

    async def load_adapter(self, client: httpx.AsyncClient, name: str, path: Path) -> None:
        """Serve `path` as model `name`; loaded already is success. Raises AdapterRejected, EngineLost."""

    async def unload_adapter(self, client: httpx.AsyncClient, name: str) -> None:
        """Stop serving `name`; not loaded is success. Raises EngineLost."""
