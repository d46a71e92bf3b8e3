"""Reads versions back from the registry, which alone knows what may serve; it keeps no answer that can change."""

from __future__ import annotations

import grpc

from kit.rpc.errors import from_rpc_error
from kit.rpc.names import project_of
from services.gateway import domain
from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry

TIMEOUT_S = 2.0
#: What the gate may still let through, so that its engine is worth keeping.
UNDECIDED = (registry.MODEL_VERSION_STATE_PENDING, registry.MODEL_VERSION_STATE_AWAITING_APPROVAL)


class Approvals:
    """The registry as the gateway asks it. Every method raises Unavailable when it does not answer, and NotFound."""

    def __init__(self, versions: registry.ModelVersionServiceAsyncStub) -> None:
        self.versions = versions

    async def version(self, name: str) -> registry.ModelVersion:
        """The version as it is now."""
        try:
            response = await self.versions.GetModelVersion(
                registry.GetModelVersionRequest(name=name), timeout=TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "the registry") from error
        return response.model_version

    async def is_approved(self, name: str) -> bool:
        """Whether the version may serve now."""
        return (await self.version(name)).state == registry.MODEL_VERSION_STATE_APPROVED

    async def require(self, *names: str) -> registry.ModelVersion:
        """The first version. Raises StateConflict (NOT_APPROVED) unless all may serve now."""
        versions = [await self.version(name) for name in names]
        refused = [each.name for each in versions if each.state != registry.MODEL_VERSION_STATE_APPROVED]
        if refused:
            raise domain.not_approved(refused)
        return versions[0]

    async def weights(self, name: str) -> gateway.LoadModelRequest:
        """What an engine host has to be told to load the version."""
        version = await self.version(name)
        request = gateway.LoadModelRequest(
            project=project_of(name), artifact=version.artifact, interface=version.interface
        )
        if version.base_model_version:
            request.base.CopyFrom((await self.version(version.base_model_version)).artifact)
        return request
