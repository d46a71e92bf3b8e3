"""Checks complete uploads and drops unfinished ones: a loop over the database, which alone is the truth."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from kit.blobs import BlobStore
from kit.rpc.errors import Fault
from kit.store import Database, failpoint, leading
from kit.telemetry import get_log
from services.dataset import checks, commands, domain, parts, store
from services.dataset.judging import End, StoredParts, broken, judged
from services.dataset.staged import Staged, StalledError
from sluice import lifecycle
from sluice.dataset import v1 as dataset

log = get_log(__name__)
LOOK_S = 1.0
#: Uploads that are checked side by side.
CHECKS = 2
#: An upload whose bytes came so lately is checked before it is complete.
AHEAD = timedelta(seconds=10)


class UploadSupervisor:
    """Turns uploads in VALIDATING into versions, or into refusals that say which row and why."""

    def __init__(self, database: Database, blobs: BlobStore, spare: checks.Spare) -> None:
        self.database = database
        self.blobs = blobs
        self.spare = spare
        self._checks: dict[str, asyncio.Task[None]] = {}
        #: Uploads that came to a stop while their check ran ahead: it waits until they are complete.
        self._stalled: set[str] = set()
        self.stored = StoredParts(database, blobs)

    async def run(self) -> None:
        """Works until cancelled; what an earlier process left half done is done again.

        Of several processes on one database only one works.
        """
        while True:
            try:
                async with leading(self.database, "dataset") as leadership:
                    while True:
                        seen = self.database.changed.count
                        await leadership.check()
                        await self.step()
                        await self.database.changed.wait(seen, LOOK_S)
            except (Fault, OSError) as error:
                log.warning("dataset_waits", reason=_reason(error))
            finally:
                await self._stop()
                await self.spare.close()
            await asyncio.sleep(LOOK_S)

    async def step(self) -> None:
        """One look at everything; checks go on after it."""
        now = self.database.clock()
        async with self.database.read() as session:
            complete = await store.UPLOADS.find(session, state=dataset.UPLOAD_STATE_VALIDATING)
            arriving = await store.arriving(session, now - AHEAD)
            forgotten = await store.open_since(session, now - domain.UPLOAD_LIVES)
        for upload in complete:
            self._begin(upload, CHECKS)
        for upload in arriving:
            if upload.name not in self._stalled:
                self._begin(upload, CHECKS - 1)  # a slow sender never keeps a complete file waiting
        for upload in forgotten:
            await self._guarded(upload.name, self._end(upload.name, commands.expire_upload))
        async with self.database.read() as session:
            leftovers = await store.leftovers(session)
            ownerless = await parts.ownerless(session)
        for name in leftovers:
            await self._guarded(name, self._drop_pieces(name))
        for name in ownerless:
            await self._guarded(name, self.stored.drop(name))
        await self._guarded("", self.stored.sweep())

    def _begin(self, upload: dataset.Upload, most: int) -> None:
        if upload.name in self._checks or len(self._checks) >= most:
            return
        self._checks[upload.name] = task = asyncio.create_task(self._guarded(upload.name, self._check(upload.name)))
        task.add_done_callback(lambda _: self._checks.pop(upload.name))

    async def settle(self) -> None:
        """Waits until no check is under way."""
        await asyncio.gather(*self._checks.values())

    async def _stop(self) -> None:
        under_way = list(self._checks.values())
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def _guarded(self, upload: str, work: Coroutine[Any, Any, None]) -> None:
        """A fault of the machine (disk full, database away) leaves an upload for the next look."""
        try:
            await work
        except (Fault, OSError) as error:
            log.warning("upload_put_off", upload=upload, reason=_reason(error))
            await asyncio.sleep(LOOK_S)

    async def _check(self, name: str) -> None:
        """Settles one upload, perhaps beginning before it is complete."""
        async with self.database.read() as session:
            upload = await store.UPLOADS.get(session, name)
        if lifecycle.is_over(lifecycle.UPLOAD, upload.state):  # settled while the list was read that it is in
            return
        source = Staged(self.database, self.blobs, upload)
        await self.stored.drop(name)  # of a check that was broken off
        try:
            command = await judged(self.database, self.stored, self.spare.take(), upload, source)
            await source.complete()
        except StalledError:
            self._stalled.add(name)
            await self.stored.drop(name)
            return
        except (Fault, OSError):
            raise
        except Exception as error:  # else the same upload would end its check again and again
            await source.complete()
            command = broken(name, type(error).__name__, traceback.extract_tb(error.__traceback__)[-1])
        self._stalled.discard(name)
        await self._end(name, command)

    async def _end(self, upload: str, command: End) -> None:
        await self.database.transact(lambda unit: command(unit, upload))

    async def _drop_pieces(self, upload: str) -> None:
        """Deletes what an upload that is over was gathered in: first the bytes, then what is known of them."""
        async with self.database.read() as session:
            pieces = await store.pieces(session, upload)
        for digest in {piece.digest for piece in pieces}:
            await self.blobs.delete(domain.staging(upload), digest)
        failpoint("dataset_pieces_deleted")
        await self.database.transact(lambda unit: store.drop_pieces(unit, upload))


def _reason(error: Fault | OSError) -> str:
    return error.reason_name if isinstance(error, Fault) else str(error.strerror)
