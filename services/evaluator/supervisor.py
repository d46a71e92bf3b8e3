"""Moves evaluations on that nobody asks about: a loop over the database, which alone is the truth."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

from kit.blobs import BlobStore
from kit.rpc.errors import Corrupt, Fault, Invalid, NotFound, StateConflict, Unavailable
from kit.store import Database, Leadership, failpoint, leading
from kit.telemetry import current_trace_id, get_log, span, with_traceparent
from services.evaluator import commands, domain, store
from services.evaluator.peers import Peers
from services.evaluator.runner import Runner
from sluice.errors import v1 as errors
from sluice.evaluator import v1 as evaluator
from sluice.types import v1 as types

log = get_log(__name__)
LOOK_S = 1.0
#: Faults that will not go away by themselves; an evaluation that meets one fails.
FINAL = (NotFound, Invalid, StateConflict, Corrupt)


class EvaluationSupervisor:
    """Checks, runs and ends evaluations. A process that starts finds those of its predecessor and goes on with them."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        peers: Peers,
        runner: Runner,
        *,
        concurrency: int,
        time_limit_s: float,
        waiting_limit_s: float,
        again_s: float = 2.0,
    ) -> None:
        """Works on ``concurrency`` evaluations at a time; what a peer's absence stopped is tried after ``again_s``."""
        self.database = database
        self.blobs = blobs
        self.peers = peers
        self.runner = runner
        self.concurrency = concurrency
        self.time_limit = timedelta(seconds=time_limit_s)
        self.waiting_limit = timedelta(seconds=waiting_limit_s)
        self.again_s = again_s
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Works until cancelled; of several processes on one database only one does."""
        while True:
            try:
                async with leading(self.database, "evaluator") as leadership:
                    await self._lead(leadership)
            except Fault as fault:
                log.warning("evaluator_waits", reason=fault.reason_name, message=fault.message)
                await asyncio.sleep(self.again_s)

    async def _lead(self, leadership: Leadership) -> None:
        try:
            while True:
                seen = self.database.changed.count
                await leadership.check()
                await self.step()
                await self.database.changed.wait(seen, LOOK_S)
        finally:
            for name in list(self._tasks):
                await self._end_task(name)

    async def step(self) -> None:
        """One look at everything. A fault of the machine or of a peer leaves its evaluation for the next look."""
        self._tasks = {name: task for name, task in self._tasks.items() if not task.done()}
        for evaluation in await self._in(types.JOB_STATE_CANCELLING):
            await self._guarded(evaluation, self._stop)
        for evaluation in await self._in(types.JOB_STATE_QUEUED, *domain.LIVE):
            await self._guarded(evaluation, self._watch_time)
        await self._end_given_up()
        # Those that a predecessor has begun come first.
        for states in (domain.LIVE, (types.JOB_STATE_QUEUED,)):
            for evaluation in await self._in(*states):
                if evaluation.name not in self._tasks and len(self._tasks) < self.concurrency:
                    self._tasks[evaluation.name] = asyncio.create_task(self._work(evaluation))
        for evaluation in await self._in(*domain.NEW):
            if isinstance(await self._guarded(evaluation, self._check), Unavailable):
                break  # a peer is away, for the others too; those that are worked on must not wait for its time-outs
        await self._drop_leftovers()

    async def _in(self, *states: int) -> list[evaluator.Evaluation]:
        async with self.database.read() as session:
            return await store.EVALUATIONS.find(session, state=states)

    async def _guarded(
        self, evaluation: evaluator.Evaluation, act: Callable[[evaluator.Evaluation], Awaitable[None]]
    ) -> Fault | None:
        """The fault that stood in the way, if one did. A bug ends what it met, and no other."""
        with with_traceparent(evaluation.traceparent):
            try:
                await act(evaluation)
            except Fault as fault:
                log.warning("evaluation_put_off", evaluation=evaluation.name, reason=fault.reason_name)
                return fault
            except Exception as error:
                await self._fail_by_bug(evaluation.name, error)
        return None

    async def _check(self, evaluation: evaluator.Evaluation) -> None:
        await self.database.transact(lambda unit: commands.validate(unit, evaluation.name))
        try:
            plan = await self._plan(evaluation)
        except Fault as fault:
            overdue = domain.waited_too_long(evaluation, self.waiting_limit, self.database.clock())
            if not isinstance(fault, FINAL) and not overdue:
                raise
            await self._fail(evaluation.name, fault)
        else:
            await self.database.transact(lambda unit: commands.queue(unit, evaluation.name, plan))

    async def _plan(self, evaluation: evaluator.Evaluation) -> domain.Plan:
        wanted = evaluation.suite if evaluation.HasField("suite") else None
        return await self.peers.plan(evaluation, wanted)

    async def _stop(self, evaluation: evaluator.Evaluation) -> None:
        await self._end_task(evaluation.name)
        await self.database.transact(partial(commands.stop, name=evaluation.name))

    async def _watch_time(self, evaluation: evaluator.Evaluation) -> None:
        now = self.database.clock()
        if domain.waited_too_long(evaluation, self.waiting_limit, now):
            expire = partial(commands.expire, name=evaluation.name, limit=self.waiting_limit)
            await self.database.transact(expire)
        failure = domain.time_limit_failure(evaluation, self.time_limit, now)
        if failure is not None:
            await self._end_task(evaluation.name)
            await self.database.transact(lambda unit: commands.fail(unit, evaluation.name, failure))

    async def _end_given_up(self) -> None:
        """Ends the work on those that began anew and were cancelled, or expired, before their work saw it."""
        if self._tasks:
            async with self.database.read() as session:
                given_up = await store.EVALUATIONS.find(session, name=list(self._tasks), state=store.GIVEN_UP)
            for evaluation in given_up:
                await self._end_task(evaluation.name)

    async def _end_task(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _work(self, evaluation: evaluator.Evaluation) -> None:
        """Brings an evaluation to its end, however often a peer is away meanwhile; the time limit ends that too."""
        name = evaluation.name
        with with_traceparent(evaluation.traceparent), span("evaluator.evaluate", evaluation=name):
            while True:
                try:
                    return await self._try(name)
                except domain.UnwantedError:
                    task = asyncio.current_task()
                    if task is not None and task.cancelling():  # what it wrote last was for nobody
                        return None
                    continue
                except Fault as fault:
                    if isinstance(fault, FINAL) and fault.reason != errors.ERROR_REASON_ROWS_FORGOTTEN:
                        return await self._fail(name, fault)
                    log.warning("evaluation_put_off", evaluation=name, reason=fault.reason_name, message=fault.message)
                except Exception as error:
                    return await self._fail_by_bug(name, error)
                await asyncio.sleep(self.again_s)

    async def _try(self, name: str) -> None:
        evaluation = await self._get(name)
        if evaluation.state == types.JOB_STATE_QUEUED:
            plan = await self._plan(evaluation)
            await self.database.transact(lambda unit: commands.claim(unit, name, plan))
            evaluation = await self._get(name)
        if evaluation.state in domain.LIVE:
            report = await self.runner.run(evaluation)
            await self.database.transact(partial(commands.succeed, name=name, report=report))

    async def _get(self, name: str) -> evaluator.Evaluation:
        async with self.database.read() as session:
            return await store.EVALUATIONS.get(session, name)

    async def _drop_leftovers(self) -> None:
        """Deletes the answers that nobody will read again: first the bytes, then what is known of them."""
        async with self.database.read() as session:
            found = await store.leftovers(session, self.database.clock() - self.waiting_limit)
        try:
            await self._drop_doomed()
            for name, digests in found.items():
                for digest in digests:
                    await self.blobs.delete(store.space_of(name), digest)
                failpoint("evaluator_batches_deleted")
                await self.database.transact(partial(store.drop_batches, evaluation=name, digests=digests))
        except Fault as fault:
            log.warning("answers_not_deleted", reason=fault.reason_name)

    async def _drop_doomed(self) -> None:
        """Deletes blobs that nobody may read any more: first the bytes, then what is known of them."""
        async with self.database.read() as session:
            found = await store.doomed(session, [*domain.LIVE, types.JOB_STATE_CANCELLING])
            named = {space: await store.named(session, space) for space in {blob.space for blob in found}}
        for blob in found:
            if blob.digest not in named[blob.space]:
                await self.blobs.delete(blob.space, blob.digest)
        for blob in found:
            await self.database.transact(partial(store.strike, space=blob.space, digest=blob.digest))

    async def _fail(self, name: str, fault: Fault) -> None:
        failure = types.Failure(reason=fault.reason, message=fault.message)  # type: ignore[arg-type]
        log.warning("evaluation_failed", evaluation=name, reason=fault.reason_name)
        await self.database.transact(lambda unit: commands.fail(unit, name, failure))

    async def _fail_by_bug(self, name: str, error: Exception) -> None:
        """Fails an evaluation for a fault of ours. The error's own words may hold content and are not logged."""
        place = traceback.extract_tb(error.__traceback__)[-1]
        log.error(
            "evaluation_broke", evaluation=name, cause=type(error).__name__, file=place.filename, line=place.lineno
        )
        message = f"the evaluation met a fault of the suite; the log has it under trace id {current_trace_id()}"
        failure = types.Failure(reason=errors.ERROR_REASON_INTERNAL, message=message)
        await self.database.transact(lambda unit: commands.fail(unit, name, failure))
