"""Models and their versions: listed, imported, approved, revoked."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator
from pathlib import Path

from kit.rpc.errors import AlreadyExists, NotFound
from sluice.client import imports, names
from sluice.client.connection import Connection, gather
from sluice.client.datasets import Datasets
from sluice.client.uploads import OnProgress
from sluice.registry import v1 as registry


class Models:
    """``client.models``. A version is named `bank-bot@3`, `bank-bot@stable`, or `bank-bot` for the newest."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._models = registry.ModelServiceStub(connection.channel)
        self._versions = registry.ModelVersionServiceStub(connection.channel)

    async def list(self, filter: str = "", limit: int = 0) -> builtins.list[registry.Model]:
        """The models of the project by name."""
        request = registry.ListModelsRequest(parent=self._connection.project, filter=filter)
        method = self._models.ListModels
        return await gather(self._connection.pages(method, request, lambda page: page.models, limit=limit))

    async def get(self, model: str) -> registry.Model:
        """One model by id; raises NotFound."""
        request = registry.GetModelRequest(name=names.model(self._connection.project, model))
        answer: registry.GetModelResponse = await self._connection.call(self._models.GetModel, request)
        return answer.model

    async def versions(
        self, model: str = "-", filter: str = "", limit: int = 0
    ) -> builtins.list[registry.ModelVersion]:
        """The versions of a model, or of all, newest first."""
        project = self._connection.project
        parent = f"{project}/models/-" if model == "-" else names.model(project, model)
        request = registry.ListModelVersionsRequest(parent=parent, filter=filter)
        method = self._versions.ListModelVersions
        return await gather(self._connection.pages(method, request, lambda page: page.model_versions, limit=limit))

    async def version(self, version: str) -> registry.ModelVersion:
        """One version with its lineage and the gate's decision; raises NotFound."""
        request = registry.GetModelVersionRequest(name=names.model_version(self._connection.project, version))
        answer: registry.GetModelVersionResponse = await self._connection.call(self._versions.GetModelVersion, request)
        return answer.model_version

    async def watch(self, version: str) -> AsyncIterator[registry.ModelVersion]:
        """The version as it stands and each time it changes, for ever."""
        request = registry.WatchModelVersionRequest(name=await self.numbered(version))

        async def snapshots() -> AsyncIterator[registry.ModelVersion]:
            async for answer in self._connection.stream(self._versions.WatchModelVersion, request):
                yield answer.model_version

        async for snapshot in self._connection.follow(snapshots):
            yield snapshot

    async def import_folder(
        self,
        model: str,
        folder: str | Path,
        *,
        dataset: str,
        task_type: str = "sft",
        base: str = "",
        endpoint: str = "",
        gate_policy: str = "",
        progress: OnProgress | None = None,
    ) -> registry.ModelVersion:
        """Imports a folder of safetensors weights, or a peft adapter, as the next version of a model.

        The model is created when it is new. ``dataset`` is the version whose rows its evaluation asks;
        ``base`` the version an adapter needs. The same weights again give the same version. Raises Invalid
        for a folder that holds no model, StateConflict (MODEL_REJECTED) for weights the suite refuses.
        """
        files = imports.model_files(Path(folder))
        await self._ensure(model, task_type, endpoint, gate_policy)
        dataset_version = await Datasets(self._connection).numbered(dataset)
        return await imports.send(
            self._connection,
            files,
            parent=names.model(self._connection.project, model),
            dataset_version=dataset_version,
            base_model_version=await self.numbered(base) if base else "",
            progress=progress,
        )

    async def approve(
        self, version: str, reason: str = "", *, waiver: bool = False, etag: str = ""
    ) -> registry.ModelVersion:
        """Gives this key's approval; with ``waiver`` lets a version through that the gate refused."""
        request = registry.ApproveModelVersionRequest(
            name=await self.numbered(version), reason=reason, waiver=waiver, etag=etag
        )
        answer: registry.ApproveModelVersionResponse = await self._connection.call(
            self._versions.ApproveModelVersion, request
        )
        return answer.model_version

    async def revoke(self, version: str, reason: str, etag: str = "") -> registry.ModelVersion:
        """Takes the approval away; the gateway takes the traffic away."""
        request = registry.RevokeModelVersionRequest(name=await self.numbered(version), reason=reason, etag=etag)
        answer: registry.RevokeModelVersionResponse = await self._connection.call(
            self._versions.RevokeModelVersion, request
        )
        return answer.model_version

    async def numbered(self, version: str) -> str:
        """The resource name with the number in place of an alias."""
        name = names.model_version(self._connection.project, version)
        return name if name.rsplit("/", 1)[-1].isdigit() else (await self.version(name)).name

    async def _ensure(self, model: str, task_type: str, endpoint: str, gate_policy: str) -> None:
        try:
            await self.get(model)
        except NotFound:
            wanted = registry.Model(display_name=model, task_type=task_type, endpoint=endpoint, gate_policy=gate_policy)
            request = registry.CreateModelRequest(parent=self._connection.project, model=wanted)
            try:
                await self._connection.call(self._models.CreateModel, request)
            except AlreadyExists:  # another process was quicker
                return
