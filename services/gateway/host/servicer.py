"""The rpcs of the engine agent, one method each."""

from __future__ import annotations

from typing import Any

from services.gateway.host.agent import EngineAgent
from sluice.gateway import v1 as gateway


class EngineHostServicer(gateway.EngineHostServiceServicer):
    """What the control process asks of a host."""

    def __init__(self, agent: EngineAgent) -> None:
        self.agent = agent

    async def LoadModel(self, request: gateway.LoadModelRequest, context: Any) -> gateway.LoadModelResponse:
        base = request.base if request.HasField("base") else None
        loaded = await self.agent.load(request.project, request.artifact, base, request.interface)
        return gateway.LoadModelResponse(loaded_model=loaded)

    async def UnloadModel(self, request: gateway.UnloadModelRequest, context: Any) -> gateway.UnloadModelResponse:
        await self.agent.unload(request.digest)
        return gateway.UnloadModelResponse()

    async def ListLoadedModels(
        self, request: gateway.ListLoadedModelsRequest, context: Any
    ) -> gateway.ListLoadedModelsResponse:
        return gateway.ListLoadedModelsResponse(loaded_models=await self.agent.loaded())
