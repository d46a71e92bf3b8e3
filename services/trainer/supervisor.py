"""Checks, starts, watches and clears away jobs: a loop over the database, which alone is the truth."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

from kit.rpc.errors import Corrupt, Fault, Invalid, NotFound, StateConflict, Unavailable
from kit.store import Database, failpoint, leading
from kit.telemetry import get_log, with_traceparent
from services.trainer import commands, domain, store
from services.trainer.backends.contract import Backend
from services.trainer.inputs import Resolve
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

log = get_log(__name__)
LOOK_S = 1.0
#: Faults that will not go away by themselves; a job that meets one while it is checked fails.
FINAL = (NotFound, Invalid, StateConflict, Corrupt)
#: An agent whose attempt has ended may take so long to wipe its files and go.
GRACE_S = 30.0


class Supervisor:
    """Checks, claims, starts, watches and clears away. Every step may be repeated; none relies on the one before."""

    def __init__(
        self,
        database: Database,
        backend: Backend,
        resolve: Resolve,
        *,
        max_jobs: int,
        heartbeat_s: float,
        waiting_limit_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``heartbeat_s`` without a report and an attempt is lost; ``monotonic`` is the clock it is measured by."""
        self.database = database
        self.backend = backend
        self.resolve = resolve
        self.max_jobs = max_jobs
        self.heartbeat_s = heartbeat_s
        self.waiting_limit = timedelta(seconds=waiting_limit_s)
        self.monotonic = monotonic
        #: By job: what was seen of its attempt, and how many seconds that has not changed. A restart, and another
        #: leader, give everybody new time.
        self._silent: dict[str, tuple[tuple[int, int, bool], float]] = {}
        self._looked_at = monotonic()
        self._passed_s = 0.0

    async def run(self) -> None:
        """Works until cancelled; of several processes on one database only one does, and that may come and go."""
        while True:
            try:
                async with leading(self.database, "trainer") as leadership:
                    self._silent.clear()
                    while True:
                        seen = self.database.changed.count
                        await leadership.check()
                        await self.step()
                        await self.database.changed.wait(seen, LOOK_S)
            except Fault as fault:
                log.warning("trainer_waits", reason=fault.reason_name, message=fault.message)
            await asyncio.sleep(LOOK_S)

    async def step(self) -> None:
        """One look at everything. A fault of the machine or of a peer leaves its job for the next look."""
        self._note_time()
        long_ago = self.database.clock() - self.waiting_limit
        async with self.database.read() as session:
            new = await store.oldest(session, domain.NEW)
            overdue = await store.oldest(session, domain.WAITING, unchanged_since=long_ago)
            placed = await store.busy_placements(session, kept_since=long_ago)
        for placement, job in placed:
            await self._guarded(job, partial(self._look_after, placement))
        for job in overdue:
            await self._guarded(job, self._expire)
        while await self.database.transact(lambda unit: commands.claim(unit, self.backend.host, self.max_jobs)):
            pass
        for job in new:
            if isinstance(await self._guarded(job, self._check), Unavailable):
                break  # a peer is away, for the others too; those that run must not wait for its time-outs

    def _note_time(self) -> None:
        """How long it is since the last look; of a pause of this process, or of the database, only a part counts."""
        now = self.monotonic()
        self._passed_s = min(now - self._looked_at, self.heartbeat_s / 2)
        self._looked_at = now

    async def _guarded(
        self, job: trainer.TrainingJob, act: Callable[[trainer.TrainingJob], Awaitable[None]]
    ) -> Exception | None:
        """What stood in the way, if anything did; whatever it is, it is the matter of this job alone."""
        with with_traceparent(job.traceparent):
            try:
                await act(job)
            except Fault as fault:
                log.warning("job_put_off", job=job.name, reason=fault.reason_name, message=fault.message)
                return fault
            except Exception as error:
                log.error("job_broke", job=job.name, exc_info=error)
                return error
        return None

    async def _check(self, job: trainer.TrainingJob) -> None:
        await self.database.transact(lambda unit: commands.validate(unit, job.name))
        try:
            spec = await self.resolve(job.spec)
        except Fault as fault:
            overdue = domain.waited_too_long(job, self.waiting_limit, self.database.clock())
            if not isinstance(fault, FINAL) and not overdue:
                raise
            failure = types.Failure(reason=fault.reason, message=fault.message)  # type: ignore[arg-type]
            await self.database.transact(lambda unit: commands.refuse(unit, job.name, failure))
        else:
            await self.database.transact(lambda unit: commands.queue(unit, job.name, spec))

    async def _expire(self, job: trainer.TrainingJob) -> None:
        await self.database.transact(lambda unit: commands.expire(unit, job.name, self.waiting_limit))

    async def _look_after(self, placement: store.PlacementRow, job: trainer.TrainingJob) -> None:
        live = domain.has_live_attempt(job, placement.epoch)
        silent_s = self._silent_s(placement, live)
        if not live:
            await self._clear_away(placement, job, silent_s)
        elif domain.time_limit_failure(job, self.database.clock()):
            if placement.handle:
                await self.backend.stop(placement.handle)
            await self.database.transact(lambda unit: commands.time_out(unit, job.name, placement.epoch))
        elif not placement.handle:
            await self._start(placement, job)
        elif not await self.backend.alive(placement.handle):
            await self._lose(placement, "the agent is gone")
        elif silent_s > self.heartbeat_s:
            await self._lose(placement, f"no report for {self.heartbeat_s:g} s")

    def _silent_s(self, placement: store.PlacementRow, live: bool) -> float:
        """How long nothing was heard of the attempt."""
        seen = (placement.epoch, placement.reports, live)
        known, silent_s = self._silent.get(placement.job, (seen, -self._passed_s))
        silent_s = silent_s + self._passed_s if known == seen else 0.0
        self._silent[placement.job] = seen, silent_s
        return silent_s

    async def _start(self, placement: store.PlacementRow, job: trainer.TrainingJob) -> None:
        """Starts the agent. Dying anywhere in here is made good by doing it again: the backend finds its agent."""
        failpoint("before_spawn")
        handle = await self.backend.start(job, placement.epoch)
        failpoint("after_spawn")
        await self.database.transact(lambda unit: store.set_handle(unit, job.name, placement.epoch, handle))
        log.info("attempt_started", job=job.name, epoch=placement.epoch)

    async def _lose(self, placement: store.PlacementRow, note: str) -> None:
        """Ends what may be left of the attempt before the job may have another."""
        await self.backend.stop(placement.handle)
        log.warning("attempt_lost", job=placement.job, epoch=placement.epoch, note=note)
        await self.database.transact(lambda unit: commands.lose(unit, placement.job, placement.epoch, note))

    async def _clear_away(self, placement: store.PlacementRow, job: trainer.TrainingJob, ended_s: float) -> None:
        """Sees to it that an attempt that has ended leaves neither processes nor decrypted files behind."""
        if placement.handle:
            if ended_s < GRACE_S and await self.backend.alive(placement.handle):
                return
            await self.backend.stop(placement.handle)
        for_good = domain.is_over_for_good(job, self.waiting_limit, self.database.clock())
        await self.backend.wipe(job.name, keep_checkpoints=not for_good)
        self._silent.pop(job.name, None)
        if for_good:
            await self.database.transact(lambda unit: store.unplace(unit, job.name, placement.epoch))
        else:
            await self.database.transact(lambda unit: store.set_handle(unit, job.name, placement.epoch, ""))
