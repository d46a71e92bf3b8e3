"""Deletes weights of imports that broke off and that nobody took up again; what a version has it never touches."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from functools import partial

from kit.blobs import BlobStore
from kit.rpc.errors import Fault
from kit.store import Database, Unit
from kit.telemetry import get_log
from services.registry import store

log = get_log(__name__)
#: How long weights stay that an import has brought or named, and no version has.
IMPORT_LIVES = timedelta(days=7)
LOOK_S = 600.0


class Sweeper:
    """Looks now and then; several processes on one database may do so side by side."""

    def __init__(self, database: Database, blobs: BlobStore, page: int = 100) -> None:
        """``page`` is how many files are looked up at a time."""
        self.database = database
        self.blobs = blobs
        self.page = page

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            try:
                await self.step()
            except Fault as fault:  # a database may come and go
                log.warning("imports_not_swept", reason=fault.reason_name)
            await asyncio.sleep(LOOK_S)

    async def step(self) -> None:
        """One look."""
        before = self.database.clock() - IMPORT_LIVES
        stuck = 0  # those that cannot go are the oldest for ever, and keep no other
        while True:
            async with self.database.read() as session:
                over = await store.loose(session, before, stuck, self.page)
            for file in over:
                stuck += await self._stays(file, before)
            if len(over) < self.page:
                return

    async def _stays(self, file: store.LooseRow, before: datetime) -> bool:
        """Strikes a file, then deletes it; whether it is as loose as before.

        In two units, so that no failed commit leaves a file known whose bytes are gone. What a process that dies in
        between has struck stays stored for good: better that than a version without its weights.
        """
        try:
            if await self.database.transact(partial(store.strike, file=file, before=before)):
                return await self.database.transact(partial(self.delete, file=file))
        except Fault as fault:
            log.warning("import_not_swept", digest=file.digest, reason=fault.reason_name)
            return True
        return False

    async def delete(self, unit: Unit, file: store.LooseRow) -> bool:
        """Deletes a struck file that nobody has named since; whether it could not, and the file is loose again.

        Whoever is about to name it waits for the unit, and then stores it anew.
        """
        if not await store.claim(unit, file):
            return False
        try:
            await self.blobs.delete(file.project, file.digest)
        except (Fault, OSError) as error:
            reason = error.reason_name if isinstance(error, Fault) else str(error.strerror)
            log.warning("import_not_swept", digest=file.digest, reason=reason)
            await store.unclaim(unit, file, stays=True)
            return True
        await store.unclaim(unit, file, stays=False)
        log.info("import_swept", project=file.project, digest=file.digest)
        return False
