"""The rpcs on model versions: each opens a unit or a session, calls one command, and wraps the answer."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kit.blobs import BlobStore
from kit.rpc.call import current_call
from kit.rpc.errors import Invalid
from kit.rpc.names import project_of
from kit.store import Database, Unit, watch
from services.registry import commands, domain, store
from services.registry.catalog import Catalog
from services.registry.imports import Note, receive
from sluice.registry import v1 as registry
from sluice.types import v1 as types

Context = Any


class ModelVersionServicer(registry.ModelVersionServiceServicer):
    """Model versions by name."""

    def __init__(self, database: Database, catalog: Catalog, blobs: BlobStore, folder: Path) -> None:
        """``folder`` holds imported files while they are checked, and nothing else; what is there now was left by a
        process that was killed."""
        shutil.rmtree(folder, ignore_errors=True)
        self.database = database
        self.catalog = catalog
        self.blobs = blobs
        self.folder = folder

    async def ImportModelVersion(
        self, request_iterator: AsyncIterator[registry.ImportModelVersionRequest], context: Context
    ) -> registry.ImportModelVersionResponse:
        header = await self._header(request_iterator)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self.folder) as scratch:
            held = await receive(header, request_iterator, Path(scratch), self.blobs, self._note(header))
        by = current_call().principal.name
        version = await self.database.transact(
            lambda unit: commands.register_import(unit, self.catalog, header, by, held)
        )
        return registry.ImportModelVersionResponse(model_version=version)

    async def GetStoredModelFiles(
        self, request: registry.GetStoredModelFilesRequest, context: Context
    ) -> registry.GetStoredModelFilesResponse:
        async with self.database.read() as session:
            known = await store.stored_files(session, request.parent, request.digests)
        found = [digest for digest in sorted(known) if await self.blobs.stat(request.parent, digest)]
        return registry.GetStoredModelFilesResponse(digests=found)

    async def GetModelVersion(
        self, request: registry.GetModelVersionRequest, context: Context
    ) -> registry.GetModelVersionResponse:
        return registry.GetModelVersionResponse(model_version=await self._get(request.name))

    async def ListModelVersions(
        self, request: registry.ListModelVersionsRequest, context: Context
    ) -> registry.ListModelVersionsResponse:
        async with self.database.read() as session:
            found, token = await store.VERSIONS.page(
                session,
                parent=request.parent,
                page_size=request.page_size,
                page_token=request.page_token,
                filter=request.filter,
                newest_first=True,
            )
        return registry.ListModelVersionsResponse(model_versions=found, next_page_token=token)

    async def WatchModelVersion(
        self, request: registry.WatchModelVersionRequest, context: Context
    ) -> AsyncIterator[registry.WatchModelVersionResponse]:
        async for version in watch(lambda: self._get(request.name), self.database.changed):
            yield registry.WatchModelVersionResponse(model_version=version)

    async def ReadModelVersionFile(
        self, request: registry.ReadModelVersionFileRequest, context: Context
    ) -> AsyncIterator[registry.ReadModelVersionFileResponse]:
        version = await self._get(request.name)
        file = domain.file_of(version, request.path, request.offset)
        await self.database.transact(lambda unit: commands.note_download(unit, version, file, request.offset))
        async for piece in self.blobs.open(project_of(version.name), file.digest, request.offset):
            yield registry.ReadModelVersionFileResponse(data=piece)

    async def ApproveModelVersion(
        self, request: registry.ApproveModelVersionRequest, context: Context
    ) -> registry.ApproveModelVersionResponse:
        by = current_call().principal.name

        async def work(unit: Unit) -> registry.ApproveModelVersionResponse:
            return registry.ApproveModelVersionResponse(model_version=await commands.approve(unit, request, by))

        return await self.database.answer(request, work)

    async def RevokeModelVersion(
        self, request: registry.RevokeModelVersionRequest, context: Context
    ) -> registry.RevokeModelVersionResponse:
        async def work(unit: Unit) -> registry.RevokeModelVersionResponse:
            return registry.RevokeModelVersionResponse(model_version=await commands.revoke(unit, request))

        return await self.database.answer(request, work)

    async def _header(self, requests: AsyncIterator[registry.ImportModelVersionRequest]) -> registry.ImportHeader:
        async for request in requests:
            if request.WhichOneof("part") != "header":
                break
            domain.check_import(request.header)
            await self.database.transact(partial(self._begin, header=request.header))
            return request.header
        raise Invalid("an import begins with its header; send that first", violations=[("header", "is missing")])

    async def _begin(self, unit: Unit, header: registry.ImportHeader) -> None:
        """Finds what a header names; files that it leaves out are kept for it."""
        await store.MODELS.get(unit.session, header.parent)
        wanted, project = set(header.stored_digests), project_of(header.parent)
        domain.check_stored(wanted - await store.stored_files(unit.session, project, wanted))
        await store.touch(unit, project, wanted)
        if header.base_model_version:
            header.base_model_version = (await store.get_version(unit.session, header.base_model_version)).name

    def _note(self, header: registry.ImportHeader) -> Note:
        async def note(file: types.ArtifactFile, brought: bool) -> None:
            project = project_of(header.parent)
            await self.database.transact(lambda unit: store.note_import(unit, project, file, brought))

        return note

    async def _get(self, name: str) -> registry.ModelVersion:
        async with self.database.read() as session:
            return await store.get_version(session, name)
