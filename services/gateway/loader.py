"""Keeps the wanted versions loaded at the engine host, and those alone; what they are wanted for is not known here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import grpc

from kit.rpc.errors import Fault, Unavailable, from_rpc_error
from kit.store import Database, Unit
from kit.telemetry import get_log, span, with_traceparent
from services.gateway import domain, loading, store
from services.gateway.approvals import UNDECIDED, Approvals
from services.gateway.settings import Timing
from services.gateway.tables import RouteTables
from sluice.errors import v1 as errors
from sluice.gateway import v1 as gateway

log = get_log(__name__)
#: Loads that an engine broke off before the version counts as failed; a host that is away does not count.
ATTEMPTS = 3
WAITING = (gateway.DEPLOYMENT_STATE_PENDING, gateway.DEPLOYMENT_STATE_LOADING)


@dataclass
class Load:
    """How the loading of a deployment goes."""

    task: asyncio.Task[None] | None = None
    broken: int = 0
    faults: int = 0
    next_try: float = 0.0


class Loader:
    """One look at a time; loads run beside it, one for each deployment."""

    def __init__(
        self,
        database: Database,
        host: gateway.EngineHostServiceAsyncStub,
        approvals: Approvals,
        tables: RouteTables,
        timing: Timing,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.database = database
        self.host = host
        self.approvals = approvals
        self.tables = tables
        self.timing = timing
        self.monotonic = monotonic
        self._loads: dict[str, Load] = {}
        #: By deployment: since when nothing needs it.
        self._idle: dict[str, float] = {}
        #: By digest: when it was loaded, so that an older list does not count it as lost.
        self._loaded: dict[str, float] = {}
        self._listed = float("-inf")

    async def look(self) -> bool:
        """Compares what is wanted with what is there, and starts what is missing; whether anything is."""
        now = self.monotonic()
        if now - self._listed >= self.timing.host_poll_s:
            self._listed = now
            await self._list()
        async with self.database.read() as session:
            wanted = await loading.wanted(session, self.database.clock(), self._keep)
            deployments = await store.DEPLOYMENTS.find(session, state=domain.DEPLOYED)
        for version in sorted(wanted - {each.model_version for each in deployments}):
            await self.database.transact(partial(loading.want, version=version))
        for deployment in deployments:
            try:
                if deployment.model_version in wanted:
                    self._idle.pop(deployment.name, None)
                    await self._see_to(deployment)
                else:
                    await self._let_go(deployment)
            except Fault as fault:
                log.info("a deployment waits", deployment=deployment.name, reason=fault.reason_name)
        return any(deployment.state in WAITING for deployment in deployments)

    async def close(self) -> None:
        """Stops waiting for loads; what the host has begun it ends by itself."""
        tasks = [load.task for load in self._loads.values() if load.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loads.clear()

    @property
    def _keep(self) -> timedelta:
        return timedelta(seconds=self.timing.keep_s)

    async def _list(self) -> None:
        """Learns what the host has. While it does not answer, its engines are taken to go on."""
        asked = self.monotonic()
        try:
            response = await self.host.ListLoadedModels(gateway.ListLoadedModelsRequest(), timeout=2.0)
        except grpc.aio.AioRpcError as error:
            log.info("the engine host does not answer", code=error.code().name)
            return
        models = {model.digest: model for model in response.loaded_models}
        for digest, upstream in self.tables.upstreams.items():
            if self._loaded.get(digest, asked - 1) >= asked and digest not in models:
                models[digest] = gateway.LoadedModel(digest=digest, upstream=upstream)
        if self.tables.place(models.values(), all_of_them=True):
            await self.database.transact(store.next_revision)
        async with self.database.read() as session:
            digests = await store.digests(session)
            deployments = await store.DEPLOYMENTS.find(session, state=domain.DEPLOYED)
        for deployment in deployments:
            lost = digests.get(deployment.model_version) not in models
            if deployment.state == gateway.DEPLOYMENT_STATE_READY and lost:
                log.warning("an engine is gone", deployment=deployment.name)
                await self.database.transact(partial(loading.lose, name=deployment.name))
        needed = {digests.get(each.model_version, "") for each in deployments}
        needed |= {model.base_digest for model in models.values()}
        for digest in models.keys() - needed:
            await self._unload(digest)

    async def _unload(self, digest: str) -> None:
        """Takes weights out of their engine that no deployment has."""
        try:
            await self.host.UnloadModel(gateway.UnloadModelRequest(digest=digest), timeout=5.0)
        except grpc.aio.AioRpcError as error:
            log.warning("weights were not unloaded", digest=digest, code=error.code().name)

    async def _see_to(self, deployment: gateway.Deployment) -> None:
        """Starts the load of a deployment that waits, unless one runs or the last has just failed."""
        load = self._loads.setdefault(deployment.name, Load())
        if load.task is not None or self.monotonic() < load.next_try:
            return
        if deployment.state == gateway.DEPLOYMENT_STATE_FAILED and await self._is_routed(deployment):
            # Traffic waits for it, so it is tried for ever; a version on trial is not.
            await self.database.transact(lambda unit: loading.want(unit, deployment.model_version))
        elif await self._waits(deployment.name):
            load.task = asyncio.create_task(self._run(deployment, load))

    async def _waits(self, name: str) -> bool:
        """Whether it waits now: since the list was read, the load that ran may have ended well."""
        async with self.database.read() as session:
            return (await store.DEPLOYMENTS.get(session, name)).state in WAITING

    async def _is_routed(self, deployment: gateway.Deployment) -> bool:
        async with self.database.read() as session:
            endpoints = await store.ENDPOINTS.find(session)
        return any(domain.stable_of(endpoint) == deployment.model_version for endpoint in endpoints)

    async def _run(self, deployment: gateway.Deployment, load: Load) -> None:
        """One load in the trace of what wanted it; how it went stands in the database afterwards."""
        with with_traceparent(deployment.traceparent):
            await self._try(deployment, load)

    async def _try(self, deployment: gateway.Deployment, load: Load) -> None:
        try:
            with span("load model", model_version=deployment.model_version):
                await self._load(deployment)
            load.faults = load.broken = 0
        except Fault as fault:
            await self._failed(deployment, load, fault)
        except Exception as error:
            load.next_try = self.monotonic() + 30.0
            log.error("a load broke off", deployment=deployment.name, exc_info=error)
        finally:
            load.task = None
            self.database.changed.fire()

    async def _load(self, deployment: gateway.Deployment) -> None:
        request = await self._weights(deployment.model_version)
        await self.database.transact(lambda unit: loading.load(unit, deployment.name))
        try:
            response = await self.host.LoadModel(request, timeout=self.timing.load_limit_s)
        except grpc.aio.AioRpcError as error:
            raise _refusal(error, self.timing.load_limit_s) from error
        model = response.loaded_model
        self._loaded[model.digest] = self.monotonic()
        self.tables.place([model])
        await self.database.transact(lambda unit: loading.ready(unit, deployment.name, model))

    async def _weights(self, version: str) -> gateway.LoadModelRequest:
        async with self.database.read() as session:
            known = await store.weights_of(session, version)
        if known is not None:
            return known
        request = await self.approvals.weights(version)
        await self.database.transact(lambda unit: store.keep_weights(unit, version, request))
        return request

    async def _failed(self, deployment: gateway.Deployment, load: Load, fault: Fault) -> None:
        load.faults += 1
        load.broken += fault.reason != errors.ERROR_REASON_SERVICE_UNAVAILABLE
        load.next_try = self.monotonic() + min(self.timing.backoff_s * 2 ** min(load.faults - 1, 10), 30.0)
        log.warning("a load failed", deployment=deployment.name, reason=fault.reason_name)
        passing = isinstance(fault, Unavailable) and fault.reason != errors.ERROR_REASON_TIME_LIMIT
        if passing and load.broken < ATTEMPTS:
            return
        failure = domain.failure_of(fault)

        async def note(unit: Unit) -> None:
            await loading.load(unit, deployment.name)
            await loading.fail(unit, deployment.name, failure)

        try:
            await self.database.transact(note)
        except Fault as other:  # the deployment was released meanwhile, or the database is away
            log.info("a failed load was not recorded", deployment=deployment.name, reason=other.reason_name)
        load.broken = 0

    async def _let_go(self, deployment: gateway.Deployment) -> None:
        """Releases a deployment that nothing has needed for the grace time, unless its gate is still open."""
        since = self._idle.setdefault(deployment.name, self.monotonic())
        if self.monotonic() - since < self.timing.grace_s:
            return
        version = deployment.model_version
        async with self.database.read() as session:
            revoked = await store.revoked(session, [version])
        if not revoked and (await self.approvals.version(version)).state in UNDECIDED:
            self._idle[deployment.name] = self.monotonic()
            return
        if await self.database.transact(lambda unit: loading.release(unit, deployment.name, self._keep)):
            self._idle.pop(deployment.name)
            load = self._loads.pop(deployment.name, None)
            if load and load.task:
                load.task.cancel()
            await self._forget(version)

    async def _forget(self, version: str) -> None:
        """Tells the host too where nothing answers for the version: it would keep its place for it."""
        async with self.database.read() as session:
            digests = await store.digests(session)
            deployments = await store.DEPLOYMENTS.find(session, state=domain.DEPLOYED)
        digest = digests.get(version, "")
        if digest and digest not in {digests.get(each.model_version) for each in deployments}:
            await self._unload(digest)


def _refusal(error: grpc.aio.AioRpcError, limit_s: float) -> Fault:
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        message = f"the version was not loaded within {limit_s:.0f} s; give the host more memory or the load more time"
        return Unavailable(message, reason=errors.ERROR_REASON_TIME_LIMIT)
    return from_rpc_error(error, "the engine host")
