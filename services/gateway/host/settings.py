"""What the engine agent is told by its environment beyond what every process is; read once and passed on by value."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from kit.settings import Settings
from services.gateway.engines.protocol import Sizing

_GIB = 2**30


@dataclass(frozen=True)
class HostSettings:
    """The settings of the engine agent; every field has an environment variable, named beside it."""

    #: The settings that every process has; the agent is part of the gateway.
    process: Settings
    #: The engine, by its name in ``services.gateway.engines.ENGINES`` (``SLUICE_ENGINE``).
    engine: str = "vllm"
    #: How much an engine may take (``SLUICE_ENGINE_DEVICE``, ``_THREADS``, ``_MAX_MODEL_LEN``, ``_LORA_RANK``,
    #: ``_MAX_LORA_RANK``).
    sizing: Sizing = field(default_factory=Sizing)
    #: An engine that is not ready within so many seconds has failed (``SLUICE_ENGINE_START_LIMIT_S``).
    start_limit_s: float = 300.0
    #: An engine that is silent for so many seconds is replaced (``SLUICE_ENGINE_SILENCE_LIMIT_S``).
    silence_limit_s: float = 30.0
    #: An adapter meets an engine of its own first, as a bad one can hurt others (``SLUICE_ENGINE_SCRATCH_PROOF``).
    scratch_proof: bool = True
    #: Weights that no engine needs are kept up to so many bytes (``SLUICE_ENGINE_CACHE_BYTES``).
    cache_bytes: int = 64 * _GIB
    #: What this host is called.
    host: str = field(default_factory=socket.gethostname)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> HostSettings:
        """Reads the environment; raises ValueError naming the variable that is wrong and what it should be."""
        return cls(
            process=Settings.from_env("gateway", environ),
            engine=environ.get("SLUICE_ENGINE") or cls.engine,
            sizing=Sizing(
                device=_device(environ),
                threads=_whole(environ, "SLUICE_ENGINE_THREADS", 2),
                max_model_len=_whole(environ, "SLUICE_ENGINE_MAX_MODEL_LEN", 4096),
                lora_rank=_whole(environ, "SLUICE_ENGINE_LORA_RANK", 64),
                max_lora_rank=_whole(environ, "SLUICE_ENGINE_MAX_LORA_RANK", 512),
            ),
            start_limit_s=float(_whole(environ, "SLUICE_ENGINE_START_LIMIT_S", 300)),
            silence_limit_s=float(_whole(environ, "SLUICE_ENGINE_SILENCE_LIMIT_S", 30)),
            scratch_proof=_chosen(environ, "SLUICE_ENGINE_SCRATCH_PROOF", "true", "false") == "true",
            cache_bytes=_whole(environ, "SLUICE_ENGINE_CACHE_BYTES", 64 * _GIB),
        )


def _device(environ: Mapping[str, str]) -> Literal["cpu", "cuda"]:
    return "cuda" if _chosen(environ, "SLUICE_ENGINE_DEVICE", "cpu", "cuda") == "cuda" else "cpu"


def _chosen(environ: Mapping[str, str], variable: str, default: str, other: str) -> str:
    value = (environ.get(variable) or default).lower()
    if value not in (default, other):
        raise ValueError(f"{variable} is `{environ[variable]}`; it takes {default} or {other}")
    return value


def _whole(environ: Mapping[str, str], variable: str, default: int) -> int:
    text = environ.get(variable) or str(default)
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(f"{variable} is `{text}`; it takes a whole number from 1")
    return int(text)
