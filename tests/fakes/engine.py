"""`FakeEngine`, the engine file of fake_engine.py; the folders that it loads are made by weights.py."""

import json
import sys
from pathlib import Path
from typing import Any

import httpx

from services.gateway.engines.openai_http import load_lora, prove, unload_lora
from services.gateway.engines.protocol import Capability, Command, Launch, Task
from tests.fakes.weights import write_adapter, write_model, write_safetensors

__all__ = ["FakeEngine", "write_adapter", "write_model", "write_safetensors"]

_PROGRAM = Path(__file__).with_name("fake_engine.py")


class FakeEngine:
    """Starts in a tenth of a second. `faults` are the fields of fake_engine.Faults."""

    name = "fake"
    capabilities: frozenset[Capability] = frozenset(
        {"chat", "completions", "streaming", "logprobs", "lora", "embeddings", "classify", "rerank", "entities"}
    )

    def __init__(self, **faults: Any) -> None:
        self.faults = faults

    def command(self, launch: Launch) -> Command:
        argv = (
            sys.executable,
            "-S",
            "-E",
            str(_PROGRAM),
            "--port",
            str(launch.port),
            "--model",
            launch.model,
        )
        env = {"FAKE_ENGINE_KEY": launch.key, "FAKE_ENGINE_FAULTS": json.dumps(self.faults)}
        return Command((*argv, "--model-dir", str(launch.model_dir), "--task", launch.task), env)

    async def ready(self, client: httpx.AsyncClient, task: Task, model: str) -> None:
        await prove(client, task, model)

    async def load_adapter(self, client: httpx.AsyncClient, name: str, path: Path) -> None:
        await load_lora(client, name, path)

    async def unload_adapter(self, client: httpx.AsyncClient, name: str) -> None:
        await unload_lora(client, name)
