"""The rpcs about uploads."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from kit.blobs import BlobStore
from kit.rpc.call import current_call
from kit.rpc.errors import Invalid
from kit.store import Database, Unit, watch
from services.dataset import checks, commands, domain, parts, store
from sluice import lifecycle
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors

Context = Any


class UploadServicer(dataset.UploadServiceServicer):
    """Chunked, resumable uploads. Bytes become encrypted blobs before they are acknowledged."""

    def __init__(self, database: Database, blobs: BlobStore, spare: checks.Spare) -> None:
        self.database = database
        self.blobs = blobs
        self.spare = spare

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
        self.spare.prepare()
        async with _OneAhead() as storing:
            async for chunk in request_iterator:
                name = name or chunk.name
                _check_chunk(chunk, name)
                if gathered and chunk.offset != offset + len(gathered):
                    raise domain.wrong_offset(chunk.offset, offset + len(gathered))
                if not gathered:
                    offset = chunk.offset
                gathered += chunk.data
                if len(gathered) >= domain.PIECE_BYTES:
                    await storing.then(self._store(name, offset, bytes(gathered)))
                    gathered = bytearray()
            if gathered:
                await storing.then(self._store(name, offset, bytes(gathered)))
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

    async def ReadQuarantine(
        self, request: dataset.ReadQuarantineRequest, context: Context
    ) -> AsyncIterator[dataset.ReadQuarantineResponse]:
        async with self.database.read() as session:
            await store.UPLOADS.get(session, request.name)
            aside = await parts.of(session, parts.quarantine_of(request.name))
        for part in aside:
            async for rows in self.blobs.open(part.project, part.digest):
                yield dataset.ReadQuarantineResponse(rows=rows)

    async def _store(self, name: str, offset: int, data: bytes) -> None:
        upload = await self._get(name)
        domain.check_open(upload, offset)
        domain.grow(upload, len(data))
        blob = await self.blobs.put(domain.staging(name), _once(data))
        await self.database.transact(lambda unit: commands.append_piece(unit, name, offset, blob))

    async def _get(self, name: str) -> dataset.Upload:
        async with self.database.read() as session:
            return await store.UPLOADS.get(session, name)


class _OneAhead:
    """Work that goes on while the next is prepared: at most one at a time, and none is left when it is over."""

    def __init__(self) -> None:
        self._work: asyncio.Task[None] | None = None

    async def __aenter__(self) -> _OneAhead:
        return self

    async def then(self, work: Coroutine[Any, Any, None]) -> None:
        """Begins the work when what was begun before is done. Raises what that raised."""
        try:
            await self._done()
        except BaseException:
            work.close()
            raise
        self._work = asyncio.create_task(work)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self._done()

    async def _done(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            await work


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
