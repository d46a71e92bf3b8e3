"""Checks complete uploads and drops unfinished ones: a loop over the database, which alone is the truth."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Coroutine
from datetime import timedelta
from functools import partial
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from kit.blobs import BlobStore
from kit.rpc.errors import Fault
from kit.store import Database, failpoint, leading
from kit.telemetry import get_log
from services.dataset import checks, commands, parts, store
from services.dataset.analysis import Analyst
from services.dataset.erasure.domain import ErasureRow
from services.dataset.erasure.erasing import Erasing
from services.dataset.erasure.supervisor import ErasureSupervisor
from services.dataset.media import assets
from services.dataset.store import UploadRow
from services.dataset.uploads import domain as uploads
from services.dataset.uploads.comparing import count_new, shares_ids
from services.dataset.uploads.judging import GRACE, End, StoredParts, broken, judged
from services.dataset.uploads.news import New, UncomparedError, UncountedError
from services.dataset.uploads.staged import Recent, Staged, StalledError, lends_space
from sluice import lifecycle
from sluice.dataset import v1 as dataset

log = get_log(__name__)
LOOK_S = 1.0
#: Uploads that are checked side by side.
CHECKS = 2
#: The longest wait between two checks of an upload that meet a fault of the machine.
MAX_WAIT_S = 60.0
#: An upload whose bytes came so lately is checked before it is complete.
AHEAD = timedelta(seconds=10)


class UploadSupervisor:
    """Turns uploads in VALIDATING into versions, or into refusals that say which row and why."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        spare: checks.Spare,
        recent: Recent,
        *,
        doomed_s: float = GRACE.total_seconds(),
        retry_s: float = LOOK_S,
    ) -> None:
        """Takes how long a blob is kept that nobody names, and the first wait after a fault of the machine."""
        self.database = database
        self.blobs = blobs
        self.spare = spare
        self.recent = recent
        #: Fired when there may be something to do; rows of feeds come too often to look at each time.
        self._changed = database.changed_in(UploadRow.__tablename__, ErasureRow.__tablename__)
        self._checks: dict[str, asyncio.Task[None]] = {}
        #: Uploads that came to a stop while their check ran ahead: it waits until they are complete.
        self._stalled: set[str] = set()
        #: Uploads whose check met a fault of the machine: when it is tried again, and the wait after that.
        self._put_off: dict[str, tuple[float, float]] = {}
        #: Uploads of which the system has ended a check.
        self._killed: set[str] = set()
        self._retry_s = retry_s
        self.stored = StoredParts(database, blobs, timedelta(seconds=doomed_s))
        self.analyst = Analyst(database, blobs, self.stored, spare)
        erasing = Erasing(database, blobs, self.stored, spare, self._drop_pieces)
        self.erasures = ErasureSupervisor(database, erasing, self._stop_checks_of)

    async def run(self) -> None:
        """Works until cancelled; what an earlier process left half done is done again.

        Of several processes on one database only one works.
        """
        clock, tidied = asyncio.get_running_loop().time, float("-inf")
        while True:
            try:
                async with leading(self.database, "dataset") as leadership:
                    while True:
                        seen = self._changed.count
                        await leadership.check()
                        await self.step()
                        if clock() - tidied >= LOOK_S:  # at every piece of an upload it would cost more than the piece
                            await self.tidy()
                            tidied = clock()
                        await self._changed.wait(seen, LOOK_S)
            except (Fault, OSError) as error:
                log.warning("dataset_waits", reason=_reason(error))
            finally:
                await self._stop()
                await self.spare.close()
            await asyncio.sleep(LOOK_S)

    async def step(self) -> None:
        """One look at what is to be done; checks and erasures go on after it."""
        await self._guarded("", self.erasures.step())
        if len(self._checks) >= CHECKS:
            return
        async with self.database.read() as session:
            complete = await store.UPLOADS.find(session, state=dataset.UPLOAD_STATE_VALIDATING)
            arriving = await store.arriving(session, self.database.clock() - AHEAD)
        for upload in complete:
            self._begin(upload, CHECKS)
        for upload in arriving:  # one place stays free of them: a slow sender never keeps a complete file waiting
            if upload.name not in self._stalled:
                self._begin(upload, CHECKS - 1)

    async def tidy(self) -> None:
        """One look at what is over or given up."""
        async with self.database.read() as session:
            forgotten = await store.open_since(session, self.database.clock() - uploads.UPLOAD_LIVES)
            await self._forget_settled(session)
        for upload in forgotten:
            await self._guarded(upload.name, self._end(upload.name, commands.expire_upload))
        async with self.database.read() as session:
            leftovers = await store.leftovers(session)
            ownerless = await parts.ownerless(session)
            over = await assets.leftovers(session)
        for name in leftovers:
            await self._guarded(name, self._drop_pieces(name))
        for name in over:
            await self._guarded(name, self.database.transact(partial(assets.drop, upload=name)))
        for name in ownerless:
            await self._guarded(name, self.stored.drop(name))
        await self._guarded("", self.stored.sweep())

    def _begin(self, upload: dataset.Upload, most: int) -> None:
        if upload.name in self._checks or len(self._checks) >= most:
            return
        again, _ = self._put_off.get(upload.name, (0.0, 0.0))
        if asyncio.get_running_loop().time() < again:
            return
        self._checks[upload.name] = task = asyncio.create_task(self._guarded_check(upload.name))
        task.add_done_callback(lambda _: self._checked(upload.name))

    def _checked(self, upload: str) -> None:
        del self._checks[upload]
        self._changed.fire()  # there is room for another

    async def settle(self) -> None:
        """Waits until no check is under way."""
        await asyncio.gather(*self._checks.values())

    async def _stop(self) -> None:
        await self.erasures.stop()
        await self._stop_checks_of("")

    async def _stop_checks_of(self, of: str) -> None:
        """Breaks off the checks of a dataset's uploads, or of all when it is empty; the next look begins them anew."""
        under_way = [task for name, task in self._checks.items() if not of or uploads.dataset_of(name) == of]
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

    async def _guarded_check(self, upload: str) -> None:
        """As above, and while the fault lasts the check is begun ever more seldom: each reads and parses it all."""
        try:
            await self._check(upload)
        except (Fault, OSError) as error:
            self._put_off_check(upload, _reason(error))

    def _put_off_check(self, upload: str, reason: str) -> None:
        _, wait = self._put_off.get(upload, (0.0, self._retry_s))
        log.warning("upload_put_off", upload=upload, reason=reason, wait_s=wait)
        self._put_off[upload] = (asyncio.get_running_loop().time() + wait, min(2 * wait, MAX_WAIT_S))

    async def _forget_settled(self, session: AsyncSession) -> None:
        """What is kept in memory of uploads goes when they are over."""
        known = self._stalled | self._killed | set(self._put_off)
        if not known:
            return
        live = [dataset.UPLOAD_STATE_OPEN, dataset.UPLOAD_STATE_VALIDATING]
        lives = {upload.name for upload in await store.UPLOADS.find(session, name=known, state=live)}
        self._stalled &= lives
        self._killed &= lives
        self._put_off = {name: again for name, again in self._put_off.items() if name in lives}

    async def _check(self, name: str) -> None:
        """Settles one upload, perhaps beginning before it is complete."""
        async with self.database.read() as session:
            upload = await store.UPLOADS.get(session, name)
        if lifecycle.is_over(lifecycle.UPLOAD, upload.state):  # settled while the list was read that it is in
            return
        source = Staged(self.database, self.blobs, upload, self.recent)
        await self.stored.drop(name)  # of a check that was broken off
        try:
            command = await judged(self.database, self.stored, self.spare.take(), upload, source)
            await source.complete()
        except StalledError:
            self._stalled.add(name)
            await self.stored.drop(name)
            return
        except checks.CheckKilled:
            if not await self._killed_again(name):
                return
            command = partial(commands.end_upload, judge=uploads.fail_killed)
        except (Fault, OSError):
            raise
        except Exception as error:  # else the same upload would end its check again and again
            await source.complete()
            command = broken(name, type(error).__name__, traceback.extract_tb(error.__traceback__)[-1])
        self._stalled.discard(name)
        await self._end(name, command)

    async def _killed_again(self, name: str) -> bool:
        """Puts down that the system has ended a check; whether it did so before. The memory may be free by the next."""
        async with self.database.read() as session:
            upload = await store.UPLOADS.get(session, name)
        if upload.state == dataset.UPLOAD_STATE_OPEN:
            self._stalled.add(name)
            await self.stored.drop(name)
            return False
        if name in self._killed:
            return True
        self._killed.add(name)
        self._put_off_check(name, "OUT_OF_MEMORY")
        return False

    async def _end(self, upload: str, command: End) -> None:
        """Runs the command; one that wants rows to be compared first is run again when they are.

        An upload that shares an id with rows which came meanwhile is left as it is: the next look checks it anew, and
        tells which rows they are.
        """
        try:
            await self.database.transact(lambda unit: command(unit, upload))
        except UncomparedError as uncompared:
            if await shares_ids(self.database, self.analyst, uncompared, upload):
                await self.stored.drop(upload)
                return
            await self._end(upload, partial(command, compared=uncompared.newest))
        except UncountedError as uncounted:
            count = await count_new(self.database, self.analyst, uncounted.version, upload)
            await self._end(upload, partial(command, new=New(uncounted.version, count)))
        failpoint("dataset_upload_ended")

    async def _drop_pieces(self, upload: str) -> None:
        """Deletes what an upload that is over was gathered in: first the bytes, then what is known of them.

        With them goes what writes that died have left in its space, unless a feed took pieces of it back.
        """
        own = uploads.staging(upload)
        async with self.database.read() as session:
            pieces = await store.pieces(session, upload)
            lends = await lends_space(session, upload)
        for space, digest in {(uploads.space_of(piece), piece.digest) for piece in pieces}:
            self.recent.drop(digest)
            if lends or space != own:
                await self.blobs.delete(space, digest)
        if not lends:
            await self.blobs.clear(own)  # all at once: a feed may have gathered thousands
        failpoint("dataset_pieces_deleted")
        await self.database.transact(lambda unit: store.drop_pieces(unit, upload))


def _reason(error: Fault | OSError) -> str:
    return error.reason_name if isinstance(error, Fault) else str(error.strerror)
