"""The bytes of an upload, read while they still come; what is in them is not known here."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

from kit.blobs import BlobStore
from kit.rpc.errors import NotFound
from kit.store import Database
from services.dataset import domain, store
from services.dataset.store import PieceRow
from sluice.dataset import v1 as dataset

#: Seconds that bytes are waited for before a check that ran ahead of its upload is given up.
PATIENCE_S = 30.0
_LOOK_S = 1.0


class StalledError(Exception):
    """The upload stopped in the middle; its check begins anew when it is complete."""


class Staged:
    """An upload's bytes, out of its pieces."""

    def __init__(self, database: Database, blobs: BlobStore, upload: dataset.Upload) -> None:
        self._database = database
        self._blobs = blobs
        self._upload = upload.name
        self._size = upload.size_bytes
        self._space = domain.staging(upload.name)
        self._pieces: list[PieceRow] = []

    async def read(self, start: int, length: int) -> bytes:
        """Exactly these bytes, as soon as they are there.

        Raises Corrupt or NotFound when they are damaged or gone, StalledError when they do not come.
        """
        end, found = start + length, bytearray()
        await self._until(end)
        for piece in self._pieces:
            first, last = max(start, piece.start), min(end, piece.start + piece.size)
            if first < last:
                async for data in self._blobs.open(self._space, piece.digest, first - piece.start, last - first):
                    found += data
        return bytes(found)

    async def digest(self) -> str:
        """`sha256:<hex>` of the whole."""
        digest, place = hashlib.sha256(), 0
        while place < self._size:
            await self._until(place + 1)
            piece = next(each for each in self._pieces if each.start == place)
            async for data in self._blobs.open(self._space, piece.digest):
                await asyncio.to_thread(digest.update, data)
            place += piece.size
        return f"sha256:{digest.hexdigest()}"

    async def complete(self) -> None:
        """Returns when the upload was handed over to the checks. Raises StalledError when that does not come."""
        await self._wait(lambda upload: upload.state != dataset.UPLOAD_STATE_OPEN)

    async def _until(self, end: int) -> None:
        """Sees to it that the pieces known reach up to ``end``."""
        if self._known() >= end:
            return
        upload = await self._wait(lambda upload: upload.committed_bytes >= end)
        async with self._database.read() as session:
            found = await store.pieces(session, upload.name)
        if len(found) > len(self._pieces):  # another reader may have come further meanwhile
            self._pieces = found
        if self._known() < end:
            raise NotFound(f"the bytes of `{self._upload}` before {end} are gone; upload the file again")

    async def _wait(self, enough: Callable[[dataset.Upload], bool]) -> dataset.Upload:
        clock = asyncio.get_running_loop().time
        given_up, size = clock() + PATIENCE_S, -1
        while True:
            seen = self._database.changed.count
            async with self._database.read() as session:
                upload = await store.UPLOADS.get(session, self._upload)
            if enough(upload):
                return upload
            if upload.committed_bytes > size:
                given_up, size = clock() + PATIENCE_S, upload.committed_bytes
            if upload.state != dataset.UPLOAD_STATE_OPEN or clock() > given_up:
                raise StalledError
            await self._database.changed.wait(seen, _LOOK_S)

    def _known(self) -> int:
        return self._pieces[-1].start + self._pieces[-1].size if self._pieces else 0
