"""The bytes of an upload, read while they still come; what is in them is not known here."""

from __future__ import annotations

import asyncio
import hashlib
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

from sqlalchemy import or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.blobs import BlobStore
from kit.rpc.errors import NotFound
from kit.rpc.names import id_of
from kit.store import Database
from services.dataset import store
from services.dataset.store import PieceRow
from services.dataset.uploads import domain as uploads
from sluice.dataset import v1 as dataset

#: Seconds that bytes are waited for before a check that ran ahead of its upload is given up.
PATIENCE_S = 30.0
_LOOK_S = 1.0
#: What is held of the pieces that came last, of all uploads together.
RECENT_BYTES = 16 << 20
SMALL_BYTES = 64 << 10


async def holds_pieces(session: AsyncSession, space: str) -> bool:
    """Whether pieces of any upload or feed lie in a space."""
    own = col(PieceRow.upload).endswith(f"/uploads/{id_of(space)}") & (col(PieceRow.space) == "")
    found = await session.exec(select(PieceRow.upload).where(or_(own, col(PieceRow.space) == space)).limit(1))
    return found.first() is not None


async def lends_space(session: AsyncSession, upload: str) -> bool:
    """Whether pieces of another upload lie in the space of this one: a feed had to take them back."""
    theirs = col(PieceRow.upload) != upload, col(PieceRow.space) == uploads.staging(upload)
    return (await session.exec(select(PieceRow.upload).where(*theirs).limit(1))).first() is not None


class StalledError(Exception):
    """The upload stopped in the middle; its check begins anew when it is complete."""


class Recent:
    """The pieces that came last, so that a check that keeps pace need not decrypt them; the store is the truth."""

    def __init__(self, most_bytes: int = RECENT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._pieces: dict[str, bytes] = {}
        self._bytes = 0

    def keep(self, digest: str, data: bytes) -> None:
        """Holds a stored piece for a while."""
        if digest not in self._pieces:
            self._pieces[digest] = data
            self._bytes += len(data)
        while self._bytes > self._most_bytes:
            self._bytes -= len(self._pieces.pop(next(iter(self._pieces))))

    def get(self, digest: str) -> bytes | None:
        """The bytes of a piece, if they are still here."""
        return self._pieces.get(digest)

    def drop(self, digest: str) -> None:
        """Lets go of a piece that is over."""
        self._bytes -= len(self._pieces.pop(digest, b""))


class Stored(NamedTuple):
    """A blob that is there; one of a version may go at any time, as its rows are forgotten or retired."""

    space: str
    digest: str
    size: int
    may_go: bool = False


class Staged:
    """An upload's bytes, out of its pieces."""

    def __init__(self, database: Database, blobs: BlobStore, upload: dataset.Upload, recent: Recent) -> None:
        self._database = database
        self._blobs = blobs
        self._recent = recent
        self._upload = upload.name
        self._size = upload.size_bytes
        self._pieces: list[PieceRow] = []
        self._looking = asyncio.Lock()
        self._wants_tokenizer = bool(upload.demands.tokenizer)
        self._following: list[Stored] = []

    async def tokenizer_bytes(self) -> int:
        """The size of the upload's tokenizer, which is read as what follows the file; 0 where it has none.

        Raises StalledError while it has not come.
        """
        if not self._wants_tokenizer:
            return 0
        async with self._database.read() as session:
            found = await store.tokenizer(session, self._upload)
        if found is None:
            raise StalledError
        self.follow(Stored(uploads.space_of(found), found.digest, found.size))
        return found.size

    def follow(self, *blobs: Stored) -> None:
        """Lets stored bytes be read as what follows the file."""
        self._following += blobs

    async def read(self, start: int, length: int) -> bytes:
        """Exactly these bytes, as soon as they are there.

        Raises Corrupt or NotFound when they are damaged or gone, StalledError when they do not come.
        """
        end, found = start + length, []
        if start >= self._size:
            return await self._read_following(start - self._size, length)
        await self._until(end)
        place = bisect_right(self._pieces, start, key=_start_of) - 1  # a feed may have thousands
        while start < end:
            piece, place = self._pieces[place], place + 1
            last = min(end, piece.start + piece.size)
            found += [data async for data in self._open(piece, start - piece.start, last - start)]
            start = last
        return found[0] if len(found) == 1 else b"".join(found)

    async def _read_following(self, start: int, length: int) -> bytes:
        """Bytes of one blob of those that follow the file."""
        for blob in self._following:
            if start >= blob.size:
                start -= blob.size
                continue
            try:
                content = self._blobs.open(blob.space, blob.digest, start, length)
                return b"".join([data async for data in content])
            except NotFound:
                if blob.may_go:  # the check begins anew, with what is there then
                    raise StalledError from None
                raise
        raise NotFound("bytes were asked for that follow nothing")

    async def _open(self, piece: PieceRow, start: int, length: int) -> AsyncIterator[bytes]:
        data = self._recent.get(piece.digest)
        if data is None and piece.size < SMALL_BYTES:  # it is read twice: to be checked, and for the digest of all
            data = b"".join([each async for each in self._blobs.open(uploads.space_of(piece), piece.digest)])
            self._recent.keep(piece.digest, data)
        if data is not None:
            yield data[start : start + length]
            return
        async for data in self._blobs.open(uploads.space_of(piece), piece.digest, start, length):
            yield data

    async def digest(self) -> str:
        """`sha256:<hex>` of the whole."""
        digest, at, place = hashlib.sha256(), 0, 0
        while at < self._size:
            await self._until(at + 1)
            piece, place = self._pieces[place], place + 1
            async for data in self._open(piece, 0, piece.size):
                if len(data) < SMALL_BYTES:  # another thread would cost more
                    digest.update(data)
                else:
                    await asyncio.to_thread(digest.update, data)
            at += piece.size
        return f"sha256:{digest.hexdigest()}"

    async def complete(self) -> None:
        """Returns when the upload was handed over to the checks. Raises StalledError when that does not come."""
        await self._wait(lambda upload: upload.state != dataset.UPLOAD_STATE_OPEN)

    async def _until(self, end: int) -> None:
        """Sees to it that the pieces known reach up to ``end``."""
        async with self._looking:  # of those who wait for the same piece one looks
            if self._known() >= end:
                return
            await self._wait(lambda upload: upload.committed_bytes >= end, self._learn)
        if self._known() < end:
            raise NotFound(f"the bytes of `{self._upload}` before {end} are gone; upload the file again")

    async def _learn(self, session: AsyncSession) -> None:
        self._pieces += await store.pieces_from(session, self._upload, self._known())

    async def _wait(
        self,
        enough: Callable[[dataset.Upload], bool],
        then: Callable[[AsyncSession], Awaitable[None]] | None = None,
    ) -> None:
        """Returns when the upload is so far; ``then`` reads in the session in which that was seen."""
        clock = asyncio.get_running_loop().time
        given_up, size = clock() + PATIENCE_S, -1
        while True:
            seen = self._database.changed.count
            async with self._database.read() as session:
                upload = await store.UPLOADS.get(session, self._upload)
                if enough(upload):
                    return await then(session) if then else None
            if upload.committed_bytes > size:
                given_up, size = clock() + PATIENCE_S, upload.committed_bytes
            if upload.state != dataset.UPLOAD_STATE_OPEN or clock() > given_up:
                raise StalledError
            await self._database.changed.wait(seen, _LOOK_S)

    def _known(self) -> int:
        return self._pieces[-1].start + self._pieces[-1].size if self._pieces else 0


def _start_of(piece: PieceRow) -> int:
    return piece.start
