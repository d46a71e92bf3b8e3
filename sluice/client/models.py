"""Models and their versions: listed, imported, approved, revoked."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Unpack

from kit.rpc.errors import AlreadyExists, NotFound
from kit.rpc.names import slug
from sluice.client import downloads, exports, imports, mirrors, names
from sluice.client.connection import Connection, gather
from sluice.client.datasets import Datasets
from sluice.client.jobs import Jobs
from sluice.client.uploads import OnProgress
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer


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
        """One version with its lineage and the gate's decision; raises NotFound.

        It may be named by where it came from: `qwen/Qwen-7B` is the one that was imported last under that id.
        """
        if mirrors.is_source_id(version):
            return await self._of_source(version)
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
        dataset: str = "",
        task_type: str = "sft",
        base: str = "",
        endpoint: str = "",
        gate_policy: str = "",
        source_id: str = "",
        progress: OnProgress | None = None,
    ) -> registry.ModelVersion:
        """Imports a folder of safetensors weights, or a peft adapter, as the next version of a model.

        The model is created when it is new. ``dataset`` is the version whose rows its evaluation asks; without one the
        version is for training from, and serves by a waiver alone. ``base`` is the version an adapter needs.
        ``source_id`` is what the weights are called elsewhere, `qwen/Qwen-7B`, by which `base` finds them. Files that
        are stored are not sent, and the same weights again give the same version. Raises Invalid for a folder that
        holds no model, or (MODEL_REJECTED) not the weights of one.
        """
        files = await asyncio.to_thread(imports.model_files, Path(folder))
        await self._ensure(model, task_type, endpoint, gate_policy)
        dataset_version = await Datasets(self._connection).numbered(dataset) if dataset else ""
        return await imports.send(
            self._connection,
            files,
            parent=names.model(self._connection.project, model),
            dataset_version=dataset_version,
            base_model_version=await self.numbered(base) if base else "",
            source_id=source_id,
            progress=progress,
        )

    async def import_base(
        self,
        source_id: str,
        mirror: str | Path,
        *,
        model: str = "",
        revision: str = "",
        dataset: str = "",
        task_type: str = "sft",
        progress: OnProgress | None = None,
    ) -> registry.ModelVersion:
        """Imports `qwen/Qwen-7B` from a folder of models, plain or a cache of Hugging Face's or ModelScope's.

        Nothing is fetched from outside. ``model`` is what it is called here; without it, the slug of the id. Raises
        NotFound where the mirror has none, and as ``import_folder`` does.
        """
        folder = await asyncio.to_thread(mirrors.find, Path(mirror), source_id, revision)
        return await self.import_folder(
            model or slug(source_id),
            folder,
            dataset=dataset,
            task_type=task_type,
            source_id=source_id,
            progress=progress,
        )

    async def download(
        self, version: str, folder: str | Path, progress: OnProgress | None = None
    ) -> registry.ModelVersion:
        """Writes the files of a version below ``folder`` and returns the version; what broke off goes on there.

        Raises Denied without the role `downloader`, Invalid where another file is in the way.
        """
        found = await self.version(version)
        await downloads.fetch(self._connection, found, Path(folder), progress)
        return found

    async def export(
        self, version: str, format: exports.Format, **told: Unpack[exports.Options]
    ) -> trainer.TrainingJob:
        """Submits the job that writes a version in another form: merged, gptq and awq become the next version of its
        model, onnx, gguf and faiss a package, which ``client.jobs.pull`` fetches. Raises Invalid.
        """
        spec = exports.spec_of(self._connection.project, await self.version(version), format, **told)
        return await Jobs(self._connection).create(spec, f"{names.short(spec.base_model_version)} as {format}")

    async def pull(self, version: str, output: str | Path, progress: OnProgress | None = None) -> Path:
        """Fetches a version below ``output``, with a manifest; returns the folder. Raises as ``download`` does."""
        return await exports.pull_version(self._connection, await self.version(version), Path(output), progress)

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
        """The resource name with the number in place of an alias, or of the id that it has elsewhere."""
        if mirrors.is_source_id(version):
            return (await self._of_source(version)).name
        name = names.model_version(self._connection.project, version)
        return name if name.rsplit("/", 1)[-1].isdigit() else (await self.version(name)).name

    async def _of_source(self, source_id: str) -> registry.ModelVersion:
        found = await self.versions(filter=f'source_id = "{source_id}"', limit=1)
        if not found:
            raise NotFound(
                f"nothing was imported as `{source_id}`; `sluice models import {source_id} --from FOLDER` brings it",
                resource=("ModelVersion", source_id),
            )
        return found[0]

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
