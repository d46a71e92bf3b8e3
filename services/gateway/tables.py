"""The route table as workers get it: what the database says, joined with where the engines are; it decides no weight.

Where engines are, and their keys, is in memory alone. The number of a table is the database's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from kit.rpc.errors import Fault
from kit.store import Database, Signal, failpoint
from kit.telemetry import get_log
from services.gateway import domain, store
from sluice.gateway import v1 as gateway

log = get_log(__name__)
#: How long a table waits, after a start, for the host to say where the engines are.
HOST_WAIT_S = 2.0


class RouteTables:
    """The newest table. ``changed`` is fired when it is another one."""

    def __init__(self, database: Database, *, host_wait_s: float = HOST_WAIT_S) -> None:
        self.database = database
        self.host_wait_s = host_wait_s
        self.changed = Signal()
        #: None until it is known for the first time; workers are told nothing before.
        self.table: gateway.RouteTable | None = None
        self._upstreams: dict[str, gateway.Upstream] = {}
        #: Set once the host has said what it has.
        self._heard = asyncio.Event()

    @property
    def upstreams(self) -> Mapping[str, gateway.Upstream]:
        """Where each artifact is loaded, by digest."""
        return self._upstreams

    def place(self, models: Iterable[gateway.LoadedModel], *, all_of_them: bool = False) -> bool:
        """Learns where models are; ``all_of_them`` forgets the others. Says whether anything is new in that, as the
        first word of the host always is: then the table needs another number."""
        before = self._upstreams
        self._upstreams = {} if all_of_them else dict(before)
        self._upstreams.update({model.digest: model.upstream for model in models})
        first = all_of_them and not self._heard.is_set()
        if all_of_them:
            self._heard.set()
        return first or self._upstreams != before

    async def run(self) -> None:
        """Makes a new table whenever the database has a new number, until cancelled."""
        try:
            await asyncio.wait_for(self._heard.wait(), self.host_wait_s)
        except TimeoutError:
            log.warning("the engine host is silent; workers keep what they have until a route changes")
        while True:
            seen = self.database.changed.count
            try:
                await self.refresh()
            except Fault as fault:
                log.warning("the route table waits for the database", reason=fault.reason_name)
            await self.database.changed.wait(seen, 0.5)

    async def refresh(self) -> None:
        """Reads the number; makes the table of it when it is new."""
        async with self.database.read() as session:
            revision = await store.revision(session)
            if self.table is not None and revision == self.table.revision:
                return
            endpoints = await store.ENDPOINTS.find(session)
            ready = await store.DEPLOYMENTS.find(session, state=gateway.DEPLOYMENT_STATE_READY)
            candidates = await store.CANDIDATES.find(session, state=gateway.CANDIDATE_ROUTE_STATE_READY)
            digests = await store.digests(session)
        places = {
            each.model_version: self.upstreams[digests[each.model_version]]
            for each in ready
            if digests.get(each.model_version) in self.upstreams
        }
        failpoint("gateway_after_route")
        self.table = table_of(revision, endpoints, candidates, places)
        self.changed.fire()


def table_of(
    revision: int,
    endpoints: Iterable[gateway.Endpoint],
    candidates: Iterable[gateway.CandidateRoute],
    places: Mapping[str, gateway.Upstream],
) -> gateway.RouteTable:
    """The table; ``places`` says where the versions are that an engine answers for."""
    return gateway.RouteTable(
        revision=revision,
        routes=[route_of(endpoint, places) for endpoint in endpoints],
        candidates=[
            gateway.CandidateTarget(
                candidate_route=each.name,
                model=each.model,
                model_version=each.model_version,
                upstream=places[each.model_version],
            )
            for each in candidates
            if each.model_version in places
        ],
    )


def route_of(endpoint: gateway.Endpoint, places: Mapping[str, gateway.Upstream]) -> gateway.Route:
    """The route of an endpoint over the arms that answer: unknown means stable.

    The share of a candidate that does not answer goes to the stable arm. Without its stable arm the endpoint has no
    arm at all (its callers get 503): a candidate is never promoted by a loss.
    """
    route = gateway.Route(endpoint=endpoint.name, interface=endpoint.interface)
    if domain.stable_of(endpoint) not in places:
        return route
    arms = [arm for arm in endpoint.route if arm.model_version in places]
    missing = 100 - sum(arm.weight_percent for arm in arms)
    for arm in arms:
        routed = route.arms.add(arm=arm, upstream=places[arm.model_version])
        if arm.role == gateway.ARM_ROLE_STABLE:
            routed.arm.weight_percent += missing
    return route
