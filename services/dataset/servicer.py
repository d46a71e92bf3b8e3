"""The rpcs of the dataset service: each opens a unit or a session, calls one command, and wraps the answer."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Any

from kit.blobs import BlobStore
from kit.rpc.call import current_call
from kit.rpc.errors import Invalid
from kit.rpc.names import project_of
from kit.store import Database, Unit, watch
from services.dataset import commands, domain, store
from services.dataset.reading import lines_of_split
from sluice import lifecycle
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors

Context = Any


class DatasetServicer(dataset.DatasetServiceServicer):
    """Datasets by name."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def CreateDataset(
        self, request: dataset.CreateDatasetRequest, context: Context
    ) -> dataset.CreateDatasetResponse:
        async def work(unit: Unit) -> dataset.CreateDatasetResponse:
            created = await commands.create_dataset(unit, request.parent, request.dataset)
            return dataset.CreateDatasetResponse(dataset=created)

        return await self.database.answer(request, work)

    async def GetDataset(self, request: dataset.GetDatasetRequest, context: Context) -> dataset.GetDatasetResponse:
        async with self.database.read() as session:
            return dataset.GetDatasetResponse(dataset=await store.DATASETS.get(session, request.name))

    async def ListDatasets(
        self, request: dataset.ListDatasetsRequest, context: Context
    ) -> dataset.ListDatasetsResponse:
        async with self.database.read() as session:
            found, token = await store.DATASETS.page(
                session,
                parent=request.parent,
                page_size=request.page_size,
                page_token=request.page_token,
                filter=request.filter,
            )
        return dataset.ListDatasetsResponse(datasets=found, next_page_token=token)

    async def UpdateDataset(
        self, request: dataset.UpdateDatasetRequest, context: Context
    ) -> dataset.UpdateDatasetResponse:
        async def work(unit: Unit) -> dataset.UpdateDatasetResponse:
            changed = await commands.update_dataset(unit, request.dataset, request.update_mask)
            return dataset.UpdateDatasetResponse(dataset=changed)

        return await self.database.answer(request, work)


class UploadServicer(dataset.UploadServiceServicer):
    """Chunked, resumable uploads. Bytes become encrypted blobs before they are acknowledged."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self.database = database
        self.blobs = blobs

    async def CreateUpload(
        self, request: dataset.CreateUploadRequest, context: Context
    ) -> dataset.CreateUploadResponse:
        async def work(unit: Unit) -> dataset.CreateUploadResponse:
            creator = current_call().principal.name
            return dataset.CreateUploadResponse(upload=await commands.create_upload(unit, request, creator))

        return await self.database.answer(request, work)

    async def WriteUpload(
        self, request_iterator: AsyncIterator[dataset.WriteUploadRequest], context: Context
    ) -> dataset.WriteUploadResponse:
        name, gathered, offset = "", bytearray(), 0
        async for chunk in request_iterator:
            name = name or chunk.name
            _check_chunk(chunk, name)
            if gathered and chunk.offset != offset + len(gathered):
                raise domain.wrong_offset(chunk.offset, offset + len(gathered))
            if not gathered:
                offset = chunk.offset
            gathered += chunk.data
            if len(gathered) >= domain.PIECE_BYTES:
                await self._store(name, offset, bytes(gathered))
                gathered = bytearray()
        if gathered:
            await self._store(name, offset, bytes(gathered))
        if not name:
            raise _unnamed()
        return dataset.WriteUploadResponse(upload=await self._get(name))

    async def CommitUpload(
        self, request: dataset.CommitUploadRequest, context: Context
    ) -> dataset.CommitUploadResponse:
        async def work(unit: Unit) -> dataset.CommitUploadResponse:
            return dataset.CommitUploadResponse(upload=await commands.commit_upload(unit, request.name))

        return await self.database.answer(request, work)

    async def GetUpload(self, request: dataset.GetUploadRequest, context: Context) -> dataset.GetUploadResponse:
        return dataset.GetUploadResponse(upload=await self._get(request.name))

    async def WatchUpload(
        self, request: dataset.WatchUploadRequest, context: Context
    ) -> AsyncIterator[dataset.WatchUploadResponse]:
        async for upload in watch(lambda: self._get(request.name), self.database.changed):
            yield dataset.WatchUploadResponse(upload=upload)
            if lifecycle.is_over(lifecycle.UPLOAD, upload.state):
                return

    async def _store(self, name: str, offset: int, data: bytes) -> None:
        upload = await self._get(name)
        domain.check_open(upload, offset)
        domain.grow(upload, len(data))
        blob = await self.blobs.put(domain.staging(name), _once(data))
        await self.database.transact(lambda unit: commands.append_piece(unit, name, offset, blob))

    async def _get(self, name: str) -> dataset.Upload:
        async with self.database.read() as session:
            return await store.UPLOADS.get(session, name)


class DatasetVersionServicer(dataset.DatasetVersionServiceServicer):
    """Versions and their rows."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self.database = database
        self.blobs = blobs

    async def GetDatasetVersion(
        self, request: dataset.GetDatasetVersionRequest, context: Context
    ) -> dataset.GetDatasetVersionResponse:
        async with self.database.read() as session:
            return dataset.GetDatasetVersionResponse(dataset_version=await store.get_version(session, request.name))

    async def ListDatasetVersions(
        self, request: dataset.ListDatasetVersionsRequest, context: Context
    ) -> dataset.ListDatasetVersionsResponse:
        async with self.database.read() as session:
            found, token = await store.page_versions(session, request.parent, request.page_size, request.page_token)
        return dataset.ListDatasetVersionsResponse(dataset_versions=found, next_page_token=token)

    async def ReadDatasetVersion(
        self, request: dataset.ReadDatasetVersionRequest, context: Context
    ) -> AsyncIterator[dataset.ReadDatasetVersionResponse]:
        async with self.database.read() as session:
            version = await store.get_version(session, request.name)
        blob = self.blobs.open(project_of(version.name), version.digest)
        async for rows in lines_of_split(blob, request.split, request.max_rows):
            yield dataset.ReadDatasetVersionResponse(rows=rows)


def _check_chunk(chunk: dataset.WriteUploadRequest, name: str) -> None:
    if not name or chunk.name not in ("", name):
        raise _unnamed()
    if zlib.crc32(chunk.data) != chunk.crc32:
        raise Invalid(
            f"the chunk at byte {chunk.offset} does not have its checksum; send it again",
            reason=errors.ERROR_REASON_CHECKSUM_MISMATCH,
        )


def _unnamed() -> Invalid:
    return Invalid(
        "the first chunk names the upload and the others name the same or none",
        violations=[("name", "is missing, or not that of the first chunk")],
    )


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
