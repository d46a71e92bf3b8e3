"""The rpcs about versions and their rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from kit.blobs import BlobStore
from kit.rpc.encoded import encoded
from kit.rpc.errors import Corrupt, NotFound
from kit.rpc.names import project_of
from kit.store import Database
from services.dataset import damage, parts, reading, store
from services.dataset.erasure import domain as erasures
from services.dataset.media import assets
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
        found, fetch, named = await self._stored(request.name, request.digest)
        wanted = reading.Wanted(request.split, most=request.max_rows, assets=named)
        async for rows in reading.json_lines(found, fetch, wanted):
            yield dataset.ReadDatasetVersionResponse(rows=rows)

    async def ReadRecordBatches(
        self, request: dataset.ReadRecordBatchesRequest, context: Context
    ) -> AsyncIterator[Any]:
        found, fetch, named = await self._stored(request.name, request.digest)
        wanted = reading.Wanted(request.split, request.start_row, request.max_rows, list(request.columns), named)
        async for ipc in reading.arrow_stream(found, fetch, wanted):
            yield encoded(dataset.ReadRecordBatchesResponse, "ipc", ipc)

    async def _stored(self, name: str, digest: str) -> tuple[list[parts.PartRow], reading.Fetch, list[str]]:
        """The parts of a version, how their bytes are had, and the columns in which its rows name assets.

        Raises NotFound; StateConflict (ROWS_FORGOTTEN) for another digest than is wanted.
        """
        async with self.database.read() as session:
            version = await store.get_version(session, name)
            erasures.check_digest(version, digest)
            found = await parts.stored(session, version)
            named = await assets.kinds_of(session, name)

        async def fetch(part: str) -> bytes:
            try:
                return b"".join([piece async for piece in self.blobs.open(project_of(name), part)])
            except (Corrupt, NotFound) as error:
                async with self.database.read() as session:
                    erasures.check_same(version, await store.get_version(session, version.name))
                what = dataset.DAMAGE_SET_ASIDE if isinstance(error, Corrupt) else dataset.DAMAGE_MISSING
                await damage.record(self.database, project_of(name), part, what)
                raise damage.of_version(version.name) from error

        return found, fetch, named
