"""Inference engines the gateway can run: one explicit map; nothing registers itself."""

from services.gateway.engines.protocol import Engine
from services.gateway.engines.vllm import VllmEngine

ENGINES: dict[str, Engine] = {"vllm": VllmEngine()}
