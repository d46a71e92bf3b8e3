"""The rpcs about versions and their rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from kit.blobs import BlobStore
from kit.rpc.names import project_of
from kit.store import Database
from services.dataset import parts, reading, store
from sluice.dataset import v1 as dataset

Context = Any


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
        wanted = reading.Wanted(request.split, most=request.max_rows)
        async for rows in reading.json_lines(*await self._stored(request.name), wanted):
            yield dataset.ReadDatasetVersionResponse(rows=rows)

    async def ReadRecordBatches(
        self, request: dataset.ReadRecordBatchesRequest, context: Context
    ) -> AsyncIterator[dataset.ReadRecordBatchesResponse]:
        wanted = reading.Wanted(request.split, request.start_row, request.max_rows, list(request.columns))
        async for ipc in reading.arrow_stream(*await self._stored(request.name), wanted):
            yield dataset.ReadRecordBatchesResponse(ipc=ipc)

    async def _stored(self, version: str) -> tuple[list[parts.PartRow], reading.Fetch]:
        """The parts of a version and how their bytes are had. Raises NotFound."""
        async with self.database.read() as session:
            found = await parts.stored(session, await store.get_version(session, version))

        async def fetch(digest: str) -> bytes:
            return b"".join([piece async for piece in self.blobs.open(project_of(version), digest)])

        return found, fetch
