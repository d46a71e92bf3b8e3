"""Sees to it that erasures that were ordered are carried out, and that versions go whose time is over."""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, timedelta
from functools import partial

from kit.rpc.errors import Fault
from kit.rpc.names import parent_of
from kit.store import Database
from kit.telemetry import get_log
from services.dataset import checks, store
from services.dataset.erasure import commands as erasure_commands
from services.dataset.erasure import domain as erasures
from services.dataset.erasure import retiring
from services.dataset.erasure.erasing import Erasing
from services.dataset.governance import audit, lineage
from services.dataset.store import DatasetRow
from sluice.dataset import v1 as dataset

log = get_log(__name__)
PAUSE_S = 1.0
#: Times that the system may end the work on an erasure before it is given up.
MAX_KILLS = 3
#: How often versions are looked through for those whose time is over.
RETIRE_EVERY_S = 600.0
#: A version that somebody began to read so lately stays: a training job runs no longer, unless it says so.
IN_USE = timedelta(days=7)


class ErasureSupervisor:
    """One erasure at a time, beside the checks of uploads; it is stepped by whoever leads."""

    def __init__(
        self,
        database: Database,
        erasing: Erasing,
        stop_checks: Callable[[str], Awaitable[None]],
        page_size: int = 1000,
    ) -> None:
        """``stop_checks`` ends the checks of a dataset's uploads; those that begin later leave forgotten rows out."""
        self._page_size = page_size
        self._database = database
        self._erasing = erasing
        self._stop_checks = stop_checks
        self._work: asyncio.Task[None] | None = None
        self._last = ""
        #: How often the system has ended the work on an erasure.
        self._killed: Counter[str] = Counter()
        self._retire_at = 0.0
        #: Fired when an erasure may wait; it is stepped at every piece of an upload too.
        self._changed = database.changed_in(erasures.ErasureRow.__tablename__)
        self._seen, self._look_at = -1, 0.0

    async def step(self) -> None:
        """One look; an erasure goes on after it."""
        if self._work is not None and not self._work.done():
            return
        now, seen = asyncio.get_running_loop().time(), self._changed.count
        if seen == self._seen and now < self._look_at:  # of another process it learns a moment later
            return
        self._seen, self._look_at = seen, now + PAUSE_S
        await self._retire()
        async with self._database.read() as session:
            waiting = sorted(await erasures.waiting(session), key=lambda each: each.name)
        if waiting:  # the next after the last one, so that one that cannot go on keeps no other waiting
            chosen = next((each for each in waiting if each.name > self._last), waiting[0])
            self._last = chosen.name
            self._work = asyncio.create_task(self._erase(chosen))

    async def settle(self) -> None:
        """Waits until no erasure is under way."""
        if self._work is not None:
            await self._work

    async def stop(self) -> None:
        """Breaks off; what is not over begins anew, here or elsewhere."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    async def _erase(self, erasure: dataset.Erasure) -> None:
        try:
            if not erasure.dry_run:
                await self._stop_checks(parent_of(erasure.name))
            await self._erasing.erase(erasure.name)
        except checks.CheckKilled:
            log.warning("erasure_put_off", erasure=erasure.name, reason="OUT_OF_MEMORY")
            self._killed[erasure.name] += 1
            if self._killed[erasure.name] == MAX_KILLS:
                why = "the machine of the service ran out of memory; free some there, then order it again"
                await self._database.transact(partial(erasure_commands.fail, name=erasure.name, why=why))
            await asyncio.sleep(PAUSE_S)
        except (Fault, OSError) as error:
            reason = error.reason_name if isinstance(error, Fault) else str(error.strerror)
            log.warning("erasure_put_off", erasure=erasure.name, reason=reason)
            await asyncio.sleep(PAUSE_S)
        except Exception as error:  # what was begun must come to its end: the next release may manage
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error("erasure_broke", erasure=erasure.name, cause=type(error).__name__, place=str(place))
            await asyncio.sleep(PAUSE_S)

    async def _retire(self) -> None:
        """Orders that versions go which are older than their dataset keeps them."""
        if asyncio.get_running_loop().time() < self._retire_at:
            return
        self._retire_at = asyncio.get_running_loop().time() + RETIRE_EVERY_S
        columns = DatasetRow.__table__.c  # type: ignore[attr-defined]
        token, where = "", [columns.retention_days > 0, columns.state != store.DELETED]
        while True:
            async with self._database.read() as session:
                kept, token = await store.DATASETS.page(
                    session, page_size=self._page_size, page_token=token, where=where
                )
            for each in kept:
                over = await self._over(each)
                if over:
                    retire = partial(retiring.retire, of=each.name, versions=over, days=each.retention_days)
                    await self._database.transact(retire)
            if not token:
                return

    async def _over(self, of: dataset.Dataset) -> list[str]:
        """The versions whose time is over: never the newest, nor one that is read or is going to be."""
        now = self._database.clock()
        async with self._database.read() as session:
            versions = await store.versions_of(session, of.name)
            used = await audit.read_since(session, of.name, now - IN_USE)
            used |= await lineage.wanted_by_jobs(session, [each.name for each in versions])
        before = now - timedelta(days=of.retention_days)
        return [
            each.name
            for each in versions
            if each.version != of.latest_version
            and not each.HasField("retire_time")
            and each.create_time.ToDatetime(UTC) < before
            and each.name not in used
        ]
