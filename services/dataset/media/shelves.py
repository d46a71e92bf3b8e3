"""Assets on their way to a checking process and from it: what came beside an upload, and what was found in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from kit.blobs import BlobStore
from kit.rpc.errors import Corrupt, NotFound
from kit.rpc.names import parent_of, project_of
from kit.store import Database, Unit
from services.dataset import checks
from services.dataset.checks import wire
from services.dataset.media import assets
from services.dataset.media.assets import AssetRow, Said

#: Assets that are named and stored together: a transaction each would take most of the time.
TOGETHER, TOGETHER_BYTES = 64, 32 << 20
#: Blobs that are written side by side.
WRITERS = 8
PIECE_BYTES = 1 << 20
#: Assets that are told of at once.
PAGE = 5000


class BesideShelf:
    """The assets beside an upload; see the contract in `services.dataset.checks`."""

    def __init__(self, database: Database, blobs: BlobStore, upload: str) -> None:
        self._database = database
        self._blobs = blobs
        self._upload = upload
        self._parent = parent_of(upload)
        self._project = project_of(upload)
        self._space = assets.space_of(self._project)

    async def page(self, after: str) -> list[wire.Named]:
        async with self._database.read() as session:
            found = await assets.page(session, self._upload, after, PAGE)
        return [wire.Named(row.path, row.digest, row.size_bytes, kind) for row, kind in found]

    async def size(self, digest: str) -> int:
        async with self._database.read() as session:
            row = await assets.brings(session, self._upload, digest)
            there = await assets.known(session, self._parent, [digest]) if row else {}
        blob = await self._blobs.stat(self._space, digest) if there else None
        if there and blob is None:
            await self._database.transact(partial(assets.lost, project=self._project, digest=digest))
        if blob is None:
            raise NotFound(f"the asset `{digest}` is gone, or never came; upload it", resource=("Asset", digest))
        return blob.size

    async def fetch(self, digest: str) -> AsyncIterator[bytes]:
        try:
            async for piece in self._blobs.open(self._space, digest):
                yield piece
        except (Corrupt, NotFound):
            await self._database.transact(partial(assets.lost, project=self._project, digest=digest))
            raise


class Keeping:
    """Takes in what a check finds to be an asset of an upload, some at a time: first the names, then the bytes.

    `deleted` returns when what is being deleted is deleted: a blob that was not named in time is then stored anew.
    """

    def __init__(
        self, database: Database, blobs: BlobStore, upload: str, deleted: Callable[[], Awaitable[None]]
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._upload = upload
        self._parent = parent_of(upload)
        self._space = assets.space_of(project_of(upload))
        self._deleted = deleted
        self._waiting: dict[str, checks.Asset] = {}
        self._bytes = 0
        self._kept: set[str] = set()
        self._storing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Keeping:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._storing is not None:
            self._storing.cancel()
            await asyncio.gather(self._storing, return_exceptions=True)

    async def add(self, asset: checks.Asset) -> None:
        """Takes an asset in, soon."""
        if asset.head.digest in self._kept:
            return
        self._kept.add(asset.head.digest)
        self._waiting[asset.head.digest] = asset
        self._bytes += len(asset.content)
        if len(self._waiting) >= TOGETHER or self._bytes >= TOGETHER_BYTES:
            await self._begin()
        if len(asset.content) >= TOGETHER_BYTES:  # not two of such at a time
            await self._done()

    async def flush(self) -> None:
        """Returns when all that was taken in is stored."""
        await self._begin()
        await self._done()

    async def _begin(self) -> None:
        """Stores what was taken in while more comes: one lot at a time."""
        await self._done()
        waiting, self._waiting, self._bytes = self._waiting, {}, 0
        if waiting:
            self._storing = asyncio.create_task(self._store(waiting))

    async def _done(self) -> None:
        storing, self._storing = self._storing, None
        if storing is not None:
            await storing

    async def _store(self, waiting: dict[str, checks.Asset]) -> None:
        new = {digest: each for digest, each in waiting.items() if each.content}  # the others came beside, with paths
        said = [Said(digest, digest, len(each.content)) for digest, each in new.items()]

        async def name(unit: Unit) -> list[str]:
            return await assets.bring(unit, self._upload, said)

        lacking = await self._database.transact(name)
        await self._deleted()
        limit = asyncio.Semaphore(WRITERS)
        writing = (self._put(digest, new[digest].content, limit) for digest in lacking)
        for fault in await asyncio.gather(*writing, return_exceptions=True):
            if isinstance(fault, BaseException):  # a full disk, say, which the supervisor waits for
                raise fault
        rows = [_row(self._parent, each) for each in waiting.values()]
        await self._database.transact(partial(assets.listed, parent=self._parent, found=rows))

    async def _put(self, digest: str, content: memoryview, limit: asyncio.Semaphore) -> None:
        async with limit:
            await self._blobs.put(self._space, _pieces(content), digest=digest)


def _row(parent: str, asset: checks.Asset) -> AssetRow:
    head, size, project = asset.head, len(asset.content), project_of(parent)
    return AssetRow(
        parent=parent,
        digest=head.digest,
        project=project,
        size_bytes=size,
        type=head.type,
        width=head.width,
        height=head.height,
    )


async def _pieces(content: memoryview) -> AsyncIterator[bytes]:
    for start in range(0, len(content), PIECE_BYTES):
        yield bytes(content[start : start + PIECE_BYTES])
