"""Moves rollouts on that nobody asks about: a loop over the database, which alone is the truth.

Before a version gets its first share, and each further one, its approval is read back from the registry. Who leads
among replicas does all of this; the others wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, timedelta
from typing import Any

from kit.rpc.errors import Fault, NotFound, StateConflict, Unavailable
from kit.store import Database, Unit, leading
from kit.telemetry import get_log, set_gauge, span, with_traceparent
from services.gateway import commands, domain, loading, steps, store
from services.gateway.approvals import Approvals
from services.gateway.figures import Figures
from services.gateway.loader import Loader
from services.gateway.settings import Timing
from sluice.errors import v1 as errors
from sluice.gateway import v1 as gateway
from sluice.types import v1 as types

log = get_log(__name__)
#: Between looks while something is under way; else the pace of the looks at the engine host will do, as what changes in
#: the database wakes it.
LOOK_S = 0.5


class Supervisor:
    """Every step may be repeated; none relies on the one before."""

    def __init__(
        self,
        database: Database,
        approvals: Approvals,
        loader: Loader,
        figures: Figures,
        timing: Timing,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.database = database
        self.approvals = approvals
        self.loader = loader
        self.figures = figures
        self.timing = timing
        self.monotonic = monotonic
        self.leads = not database.postgres
        self._rechecked = float("-inf")

    async def run(self) -> None:
        """Works while this process leads, until cancelled."""
        try:
            while True:
                try:
                    async with leading(self.database, "gateway") as leadership:
                        self.leads = True
                        while True:
                            seen = self.database.changed.count
                            await leadership.check()
                            busy = await self.step()
                            await self.database.changed.wait(seen, LOOK_S if busy else self.timing.host_poll_s)
                except Fault as fault:
                    log.warning("the supervisor waits", reason=fault.reason_name)
                finally:
                    self.leads = not self.database.postgres
                await asyncio.sleep(LOOK_S)
        finally:
            await self.loader.close()

    async def step(self) -> bool:
        """One look at everything; whether anything is under way. A fault of a peer leaves its rollout for the next."""
        loads = await self.loader.look()
        await self._expire()
        async with self.database.read() as session:
            rollouts = await store.ROLLOUTS.find(session, state=domain.LIVE)
            endpoints = await store.ENDPOINTS.find(session)
        busy = {each.name for each in endpoints if each.active_rollout}
        self.figures.keep(busy)
        for rollout in rollouts:
            endpoint = domain.endpoint_of(rollout.name)
            if rollout.state == domain.PENDING and endpoint not in busy:
                busy.add(endpoint)
                await self._guarded(rollout, self._begin(rollout))
            elif rollout.state == domain.PREPARING:
                await self._guarded(rollout, self._start(rollout))
            elif rollout.state == domain.PROGRESSING:
                await self._guarded(rollout, self._progress(rollout))
        for each in endpoints:
            if not each.route and each.route_revision and each.name not in busy:
                await self._guarded(gateway.Rollout(name=each.name), self._fall_back(each))
        if self.monotonic() - self._rechecked >= self.timing.recheck_s:
            self._rechecked = self.monotonic()
            await self._recheck()
        return loads or bool(rollouts)

    async def _guarded(self, rollout: gateway.Rollout, work: Coroutine[Any, Any, None]) -> None:
        """Does work in the trace of the rollout; whoever was faster has won, and what is away comes back."""
        try:
            with with_traceparent(rollout.traceparent):
                await work
        except Fault as fault:
            log.info("a rollout waits", rollout=rollout.name, reason=fault.reason_name)

    async def _transact(self, command: Callable[..., Awaitable[Any]], *args: Any) -> None:
        async def work(unit: Unit) -> None:
            await command(unit, *args)

        with span(str(getattr(command, "__name__", "command")), subject=str(args[0])):
            await self.database.transact(work)

    async def _expire(self) -> None:
        async with self.database.read() as session:
            routes = await store.CANDIDATES.find(session, state=domain.ROUTED)
        for route in routes:
            if route.expire_time.ToDatetime(UTC) <= self.database.clock():
                await self._transact(loading.expire_candidate, route.name)

    async def _begin(self, rollout: gateway.Rollout) -> None:
        """Gives a waiting rollout its turn, or ends it when its version may not serve."""
        try:
            version = await self.approvals.require(rollout.model_version)
            await self._transact(commands.begin_rollout, rollout.name, version.interface)
        except (StateConflict, NotFound) as fault:
            await self._transact(commands.fail_rollout, rollout.name, domain.failure_of(fault))

    async def _start(self, rollout: gateway.Rollout) -> None:
        """Gives the first share once both versions answer; without a way back nobody sets out."""
        async with self.database.read() as session:
            endpoint = await store.ENDPOINTS.get(session, domain.endpoint_of(rollout.name))
            versions = [rollout.model_version, *filter(None, [domain.stable_of(endpoint)])]
            deployments = [await loading.deployment_of(session, version) for version in versions]
        failed = [each for each in deployments if each and each.state == gateway.DEPLOYMENT_STATE_FAILED]
        if failed:
            await self._transact(commands.fail_rollout, rollout.name, _cannot_load(failed[0], rollout))
        elif all(each and each.state == gateway.DEPLOYMENT_STATE_READY for each in deployments):
            try:
                await self.approvals.require(*versions)
            except (StateConflict, NotFound) as fault:
                await self._refuse(rollout, fault)
            else:
                await self._transact(commands.start_rollout, rollout.name)
        elif self._waited(rollout) > timedelta(seconds=2 * self.timing.load_limit_s):
            message = (
                f"`{rollout.model_version}` or its incumbent was not loaded in time; see `sluice deployments list`"
            )
            failure = types.Failure(reason=errors.ERROR_REASON_TIME_LIMIT, message=message)
            await self._transact(commands.fail_rollout, rollout.name, failure)

    async def _progress(self, rollout: gateway.Rollout) -> None:
        """Looks at the figures of the present step and does what they say."""
        async with self.database.read() as session:
            endpoint = await store.ENDPOINTS.get(session, domain.endpoint_of(rollout.name))
            deployment = await loading.deployment_of(session, rollout.model_version)
        self.figures.since(endpoint.name, endpoint.route_revision)
        candidate = self.figures.of(endpoint.name, rollout.model_version)
        incumbent = self.figures.of(endpoint.name, rollout.incumbent)
        now = self.database.clock()
        step = steps.next_step(rollout.plan, rollout.step, rollout.step_time.ToDatetime(UTC), candidate, incumbent, now)
        if deployment is None or deployment.state == gateway.DEPLOYMENT_STATE_FAILED:
            step = steps.Step(steps.ROLL_BACK, "no engine can load the version any more")
        set_gauge("sluice_rollout_starved", float(step.alarm), endpoint=endpoint.name)
        weight = rollout.plan.steps[rollout.step].weight_percent
        run = steps.analysis_run(weight, step, candidate, incumbent, now)
        if step.decision == steps.ROLL_BACK:
            await self._transact(commands.revert_rollout, rollout.name, rollout.step, run)
        elif step.decision == steps.ADVANCE:
            await self._advance(rollout, run)
        elif steps.is_news(rollout, run):
            if step.alarm:
                log.error("a rollout is starved", rollout=rollout.name, reason=step.reason)
            await self._transact(commands.note_run, rollout.name, rollout.step, run)

    async def _advance(self, rollout: gateway.Rollout, run: gateway.AnalysisRun) -> None:
        try:
            await self.approvals.require(rollout.model_version)
        except (StateConflict, NotFound) as fault:
            await self._refuse(rollout, fault)
        else:
            await self._transact(commands.advance_rollout, rollout.name, rollout.step, run)

    async def _refuse(self, rollout: gateway.Rollout, fault: Fault) -> None:
        """Takes away what the registry does not stand for, whichever version it is."""
        log.warning("an approval is gone", rollout=rollout.name, reason=fault.reason_name)
        await self._recheck()

    async def _recheck(self) -> None:
        """Asks for the approval of all that serves or is about to, in case an event is late."""
        async with self.database.read() as session:
            endpoints = await store.ENDPOINTS.find(session)
            rollouts = await store.ROLLOUTS.find(session, state=domain.ACTIVE)
        versions = {arm.model_version for endpoint in endpoints for arm in endpoint.route}
        asked = sorted(versions | {rollout.model_version for rollout in rollouts})
        answers = await asyncio.gather(*map(self._may_serve, asked))
        for version, may_serve in zip(asked, answers, strict=True):
            if not may_serve:
                await self._transact(commands.revoke_version, version)

    async def _fall_back(self, endpoint: gateway.Endpoint) -> None:
        """Finds the last version that served and still may. One whose own rollout was taken back stays away."""
        async with self.database.read() as session:
            rollouts = await store.ROLLOUTS.find(session, parent=endpoint.name)
            revoked = await store.revoked(session, {each.incumbent for each in rollouts})
        taken_back = {each.model_version: each.state == domain.ROLLED_BACK for each in rollouts}
        for version in [each.incumbent for each in reversed(rollouts) if each.incumbent]:
            if version in revoked or taken_back.get(version):
                continue
            if await self.approvals.is_approved(version):
                await self._transact(commands.fall_back, endpoint.name, version)
                return

    async def _may_serve(self, version: str) -> bool:
        """Whether the registry stands for a version; while it does not answer, what it said last holds."""
        try:
            return await self.approvals.is_approved(version)
        except NotFound:
            return False
        except Unavailable:
            return True

    def _waited(self, rollout: gateway.Rollout) -> timedelta:
        return self.database.clock() - rollout.update_time.ToDatetime(UTC)


def _cannot_load(deployment: gateway.Deployment, rollout: gateway.Rollout) -> types.Failure:
    """Why a rollout does not set out."""
    if deployment.model_version == rollout.model_version:
        return deployment.failure
    message = (
        f"the incumbent `{deployment.model_version}` cannot be loaded, so there would be no way back: "
        f"{deployment.failure.message}"
    )
    return types.Failure(reason=deployment.failure.reason, message=message)
