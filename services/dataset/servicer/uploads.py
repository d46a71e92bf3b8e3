"""The rpcs about uploads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

from kit.blobs import BlobStore
from kit.rpc.call import current_call
from kit.rpc.errors import Invalid
from kit.store import Database, Unit, failpoint, watch
from services.dataset import checks, commands, damage, parts, store
from services.dataset.domain import schema_of
from services.dataset.labels import Labels
from services.dataset.uploads import demands
from services.dataset.uploads import domain as uploads
from services.dataset.uploads.chunks import Chunk, Gathering, joined, unnamed
from services.dataset.uploads.staged import Recent
from sluice import lifecycle
from sluice.dataset import v1 as dataset

Context = Any
#: The client waits for what it is told here, which may have been stored by another replica.
ACKNOWLEDGED_S = 0.05


async def _sound(version: str) -> bool:
    """Where nobody looks for damage."""
    return False


class UploadServicer(dataset.UploadServiceServicer):
    """Chunked, resumable uploads. Bytes become encrypted blobs before they are acknowledged."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        spare: checks.Spare,
        recent: Recent,
        is_damaged: Callable[[str], Awaitable[bool]] = _sound,
        labels: Labels | None = None,
    ) -> None:
        """``is_damaged`` says of a version whether something that its rows are stored in is known to be damaged."""
        self.database = database
        self.labels = labels or Labels()
        self.is_damaged = is_damaged
        self.blobs = blobs
        self.spare = spare
        self.recent = recent

    async def CreateUpload(
        self, request: dataset.CreateUploadRequest, context: Context
    ) -> dataset.CreateUploadResponse:
        async with self.database.read() as session:
            parent = await store.DATASETS.get(session, request.parent)
        # Before the unit: while one is open nobody else writes, and an expression may take a while.
        await asyncio.to_thread(demands.check, demands.at_least(request.demands, parent), schema_of(parent))
        asked = await self.labels.ask_of(parent)

        async def work(unit: Unit) -> dataset.CreateUploadResponse:
            asked()
            creator = current_call().principal.name
            return dataset.CreateUploadResponse(upload=await commands.create_upload(unit, request, creator))

        answer = await self.database.answer(request, work)
        if request.request_id:
            await self._check_sound(answer.upload.name)
        return answer

    async def _check_sound(self, name: str) -> None:
        """Raises Corrupt for an upload of before whose version is damaged: else the file would not be sent again."""
        async with self.database.read() as session:
            of_before = await store.UPLOADS.find(session, name=name, state=dataset.UPLOAD_STATE_COMMITTED)
        for upload in of_before:
            if await self.is_damaged(upload.dataset_version):
                raise damage.of_version(upload.dataset_version)

    async def WriteUpload(
        self, request_iterator: AsyncIterator[dataset.WriteUploadRequest], context: Context
    ) -> dataset.WriteUploadResponse:
        gathering = Gathering(request_iterator)
        self.spare.prepare()
        async with _OneAhead() as storing, aclosing(gathering.pieces()) as pieces:
            try:
                async for chunks in pieces:
                    await storing.then(self._store(gathering.name, chunks))
            except asyncio.CancelledError:  # the sender is gone, and need not send again what has come
                if chunks := gathering.rest():
                    await storing.then(self._store(gathering.name, chunks))
                raise
        return dataset.WriteUploadResponse(upload=await self._get(gathering.name))

    async def WriteTokenizer(
        self, request_iterator: AsyncIterator[dataset.WriteTokenizerRequest], context: Context
    ) -> dataset.WriteTokenizerResponse:
        first = await anext(aiter(request_iterator), None)
        if first is None or not first.name:
            raise unnamed()
        upload = await self._get(first.name)
        demands.check_tokenizer_wanted(upload, upload.demands.tokenizer)
        content = _bounded(first, request_iterator)
        blob = await self.blobs.put(uploads.staging(upload.name), content, digest=upload.demands.tokenizer)
        kept = await self.database.transact(lambda unit: commands.keep_tokenizer(unit, upload.name, blob))
        return dataset.WriteTokenizerResponse(upload=kept)

    async def CommitUpload(
        self, request: dataset.CommitUploadRequest, context: Context
    ) -> dataset.CommitUploadResponse:
        async def work(unit: Unit) -> dataset.CommitUploadResponse:
            return dataset.CommitUploadResponse(upload=await commands.commit_upload(unit, request.name))

        answer = await self.database.answer(request, work)
        failpoint("dataset_handed_over")
        return answer

    async def GetUpload(self, request: dataset.GetUploadRequest, context: Context) -> dataset.GetUploadResponse:
        return dataset.GetUploadResponse(upload=await self._get(request.name))

    async def WatchUpload(
        self, request: dataset.WatchUploadRequest, context: Context
    ) -> AsyncIterator[dataset.WatchUploadResponse]:
        every_s = ACKNOWLEDGED_S if self.database.postgres else 1.0  # SQLite has no other replica
        async for upload in watch(lambda: self._get(request.name), self.database.changed, every_s):
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

    async def _store(self, name: str, chunks: Sequence[Chunk]) -> None:
        upload, offset = await self._get(name), chunks[0].offset
        uploads.check_open(upload, offset)
        data = await asyncio.to_thread(joined, chunks)
        uploads.grow(upload, len(data))
        blob = await self.blobs.put(uploads.staging(name), _once(data))
        self.recent.keep(blob.digest, data)
        failpoint("dataset_piece_stored")
        await self.database.transact(lambda unit: commands.append_piece(unit, name, offset, blob))
        failpoint("dataset_piece_counted")

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


async def _bounded(
    first: dataset.WriteTokenizerRequest, others: AsyncIterator[dataset.WriteTokenizerRequest]
) -> AsyncIterator[bytes]:
    """The bytes of a tokenizer. Raises Invalid when they are more than one may have."""
    size = len(first.data)
    yield first.data
    async for piece in others:
        size += len(piece.data)
        if size > demands.TOKENIZER_BYTES or piece.name not in ("", first.name):
            raise Invalid(f"a tokenizer.json has at most {demands.TOKENIZER_BYTES >> 20} MiB, and comes for one upload")
        yield piece.data


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
