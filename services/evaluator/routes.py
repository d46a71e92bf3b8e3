"""Candidate routes: leases on loaded versions, taken from the gateway, kept alive and given back."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from kit.rpc.errors import Fault, NotFound, StateConflict, Unavailable
from kit.rpc.names import project_of
from kit.telemetry import get_log
from services.evaluator.peers import PEER_TIMEOUT_S, asked
from sluice.errors import v1 as errors
from sluice.gateway import v1 as gateway

log = get_log(__name__)
READY, FAILED = gateway.CANDIDATE_ROUTE_STATE_READY, gateway.CANDIDATE_ROUTE_STATE_FAILED


class RouteLost(Unavailable):
    """A route ended before it was given back; another may be asked for."""


@dataclass
class Lease:
    """A route that is held. ``model`` is the name to send to the gateway's HTTP port."""

    name: str
    version: str
    model: str = ""
    lost: Fault | None = None

    def check(self) -> None:
        """Raises what ended the route, if anything did."""
        if self.lost is not None:
            raise self.lost


class Routes:
    """The routes that this process holds; two evaluations of one version share its route."""

    def __init__(
        self,
        stub: gateway.CandidateRouteServiceAsyncStub,
        *,
        timeout_s: float,
        poll_s: float = 1.0,
        keep_s: float = 10.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Looks every ``poll_s`` while a version loads, for ``timeout_s`` at most, and every ``keep_s`` afterwards."""
        self._stub = stub
        self._timeout_s = timeout_s
        self._poll_s = poll_s
        self._keep_s = keep_s
        self._monotonic = monotonic
        self._users: Counter[str] = Counter()

    @asynccontextmanager
    async def held(self, versions: Sequence[str]) -> AsyncIterator[list[Lease]]:
        """Ready routes to these versions, kept until the block ends and given back whatever happens in it.

        Raises StateConflict or another fault with the gateway's sentence for a version that cannot be loaded,
        Unavailable while the gateway is away.
        """
        async with AsyncExitStack() as stack:
            leases = [await stack.enter_async_context(self._created(version)) for version in versions]
            for lease in leases:
                await self._wait_ready(lease)
            keeper = asyncio.create_task(self._keep(leases))
            stack.callback(keeper.cancel)
            yield leases

    @asynccontextmanager
    async def _created(self, version: str) -> AsyncIterator[Lease]:
        request = gateway.CreateCandidateRouteRequest(parent=project_of(version), model_version=version)
        call = self._stub.CreateCandidateRoute(request, timeout=PEER_TIMEOUT_S)
        route = (await asked("the gateway", call)).candidate_route
        self._users[route.name] += 1
        try:
            yield Lease(route.name, version)
        finally:
            self._users[route.name] -= 1
            if not self._users[route.name]:
                del self._users[route.name]
                await self._release(route.name)

    async def _wait_ready(self, lease: Lease) -> None:
        deadline = self._monotonic() + self._timeout_s
        while not await self._look(lease):
            if self._monotonic() > deadline:
                raise StateConflict(
                    f"`{lease.version}` was not loaded within {self._timeout_s:g} s; see the gateway's log, "
                    "or set SLUICE_EVALUATOR_PREPARE_TIMEOUT_S higher",
                    reason=errors.ERROR_REASON_ENGINE_FAILED,
                )
            await asyncio.sleep(self._poll_s)

    async def _look(self, lease: Lease) -> bool:
        """Whether the route can be used; looking renews it. Raises when it never will be."""
        request = gateway.GetCandidateRouteRequest(name=lease.name)
        call = self._stub.GetCandidateRoute(request, timeout=PEER_TIMEOUT_S)
        try:
            route = (await asked("the gateway", call)).candidate_route
        except NotFound:
            raise _lost(lease) from None
        if route.state == FAILED:
            sentence = route.failure.message or "the gateway does not say why"
            raise StateConflict(
                f"`{lease.version}` could not be loaded: {sentence}",
                reason=route.failure.reason or errors.ERROR_REASON_ENGINE_FAILED,
            )
        if route.state == gateway.CANDIDATE_ROUTE_STATE_RELEASED:
            raise _lost(lease)
        lease.model = route.model
        return route.state == READY

    async def _keep(self, leases: Sequence[Lease]) -> None:
        """Renews the routes; one that ended is marked, and whoever uses it next is told."""
        while True:
            await asyncio.sleep(self._keep_s)
            for lease in leases:
                try:
                    await self._look(lease)
                except (RouteLost, StateConflict) as fault:
                    lease.lost = fault
                except Fault as fault:  # a route outlives a short absence of the gateway
                    log.warning("route_not_renewed", version=lease.version, reason=fault.reason_name)

    async def _release(self, name: str) -> None:
        request = gateway.ReleaseCandidateRouteRequest(name=name)
        try:
            await asked("the gateway", self._stub.ReleaseCandidateRoute(request, timeout=PEER_TIMEOUT_S))
        except Fault as fault:  # its time runs out all the same
            log.warning("route_not_released", route=name, reason=fault.reason_name)


def _lost(lease: Lease) -> RouteLost:
    return RouteLost(f"the candidate route to `{lease.version}` ended early; it is asked for again")
