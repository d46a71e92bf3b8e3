"""What can be done to deployments and candidate routes: one function an intent, inside a unit of the caller."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from kit.rpc.errors import StateConflict
from kit.store import Unit
from kit.telemetry import current_traceparent
from services.gateway import domain, store
from sluice.gateway import v1 as gateway
from sluice.types import v1 as types

LOADING, READY = gateway.DEPLOYMENT_STATE_LOADING, gateway.DEPLOYMENT_STATE_READY
FAILED, RELEASED = gateway.DEPLOYMENT_STATE_FAILED, gateway.DEPLOYMENT_STATE_RELEASED


async def deployment_of(session: AsyncSession, version: str) -> gateway.Deployment | None:
    """The deployment of a version that is not released, if there is one."""
    found = await store.DEPLOYMENTS.find(session, model_version=version, state=domain.DEPLOYED)
    return found[0] if found else None


async def want(unit: Unit, version: str) -> gateway.Deployment:
    """Sees to it that a version is loaded; one that failed is tried again."""
    deployment = await deployment_of(unit.session, version)
    if deployment is None:
        return await store.DEPLOYMENTS.insert(unit, domain.new_deployment(version, current_traceparent()))
    if deployment.state == FAILED:
        deployment.traceparent = current_traceparent() or deployment.traceparent
        await _enter(unit, deployment, LOADING)
    return deployment


async def require_ready(unit: Unit, *versions: str) -> None:
    """Raises StateConflict naming the first version that no engine answers for."""
    for version in versions:
        deployment = await deployment_of(unit.session, version)
        if deployment is None or deployment.state != READY:
            fix = "wait until it is" if deployment else "`sluice rollouts create ENDPOINT MODEL@N` loads it again"
            raise StateConflict(
                f"`{version}` is not loaded, so it can take no traffic; {fix}", resource=("ModelVersion", version)
            )


async def load(unit: Unit, name: str) -> None:
    """Notes that a host is being asked."""
    deployment = await store.DEPLOYMENTS.get(unit.session, name)
    if deployment.state != LOADING:
        await _enter(unit, deployment, LOADING)


async def ready(unit: Unit, name: str, model: gateway.LoadedModel) -> None:
    """Notes that an engine answers for a version. Where it is stays in memory."""
    deployment = await store.DEPLOYMENTS.get(unit.session, name)
    deployment.host, deployment.engine = model.host, model.engine
    await _enter(unit, deployment, READY)


async def fail(unit: Unit, name: str, failure: types.Failure) -> None:
    """Notes that a version cannot be loaded."""
    deployment = await store.DEPLOYMENTS.get(unit.session, name)
    deployment.failure.CopyFrom(failure)
    await _enter(unit, deployment, FAILED)


async def lose(unit: Unit, name: str) -> None:
    """Notes that the engine of a version is gone; it has no traffic until another answers."""
    deployment = await store.DEPLOYMENTS.get(unit.session, name)
    if deployment.state != READY:
        return
    deployment.restarts += 1
    await _enter(unit, deployment, LOADING)


async def release(unit: Unit, name: str, keep: timedelta) -> bool:
    """Gives up a deployment that nothing needs; False when something does by now."""
    deployment = await store.DEPLOYMENTS.get(unit.session, name)
    if deployment.model_version in await wanted(unit.session, unit.now, keep):
        return False
    await _enter(unit, deployment, RELEASED)
    return True


async def wanted(session: AsyncSession, now: datetime, keep: timedelta) -> set[str]:
    """The versions that are routed, line up, are judged, or served until ``keep`` ago, and may serve."""
    versions = {arm.model_version for each in await store.ENDPOINTS.find(session) for arm in each.route}
    for rollout in await store.ROLLOUTS.find(session, state=domain.LIVE):
        versions |= {rollout.model_version, rollout.incumbent}
    for rollout in await store.ROLLOUTS.find(session, state=domain.PROMOTED):
        if rollout.update_time.ToDatetime(UTC) + keep > now:
            versions.add(rollout.incumbent)
    for route in await store.CANDIDATES.find(session, state=domain.ROUTED):
        versions.add(route.model_version)
    return versions - {""} - set(await store.revoked(session, versions))


async def create_candidate(unit: Unit, parent: str, version: str, lease_s: float) -> gateway.CandidateRoute:
    """The live candidate route of a version, its time renewed, or a new one."""
    live = await store.CANDIDATES.find(unit.session, model_version=version, state=domain.ROUTED)
    if live:
        return await renew_candidate(unit, live[0].name, lease_s)
    deployment = await want(unit, version)
    route = domain.new_candidate(parent, version, unit.now, lease_s)
    if deployment.state == READY:
        domain.settle(route, gateway.CANDIDATE_ROUTE_STATE_READY)
        await store.next_revision(unit)
    return await store.CANDIDATES.insert(unit, route)


async def renew_candidate(unit: Unit, name: str, lease_s: float) -> gateway.CandidateRoute:
    """The candidate route, its time renewed when that is due."""
    route = await store.CANDIDATES.get(unit.session, name)
    if not domain.wants_renewal(route, unit.now, lease_s):
        return route
    route.expire_time.FromDatetime(unit.now + timedelta(seconds=lease_s))
    return await store.CANDIDATES.update(unit, route)


async def release_candidate(unit: Unit, name: str) -> gateway.CandidateRoute:
    """Ends a candidate route; one that has ended stays as it is."""
    route = await store.CANDIDATES.get(unit.session, name)
    if route.state == gateway.CANDIDATE_ROUTE_STATE_RELEASED:
        return route
    return await _settle(unit, route, gateway.CANDIDATE_ROUTE_STATE_RELEASED)


async def expire_candidate(unit: Unit, name: str) -> None:
    """Ends a candidate route whose time is over by now."""
    route = await store.CANDIDATES.get(unit.session, name)
    if route.state in domain.ROUTED and route.expire_time.ToDatetime(UTC) <= unit.now:
        await _settle(unit, route, gateway.CANDIDATE_ROUTE_STATE_RELEASED)


async def _enter(unit: Unit, deployment: gateway.Deployment, state: gateway.DeploymentState) -> None:
    """Moves a deployment on and its candidate route with it; both are in the route table."""
    before = deployment.state
    domain.deploy(deployment, state)
    if state != FAILED:
        deployment.ClearField("failure")
    await store.DEPLOYMENTS.update(unit, deployment)
    for route in await store.CANDIDATES.find(unit.session, model_version=deployment.model_version, state=domain.ROUTED):
        await _follow(unit, route, deployment)
    if READY in (before, state):
        await store.next_revision(unit)


async def _follow(unit: Unit, route: gateway.CandidateRoute, deployment: gateway.Deployment) -> None:
    if deployment.state == READY and route.state == gateway.CANDIDATE_ROUTE_STATE_LOADING:
        await _settle(unit, route, gateway.CANDIDATE_ROUTE_STATE_READY)
    elif deployment.state == FAILED and route.state == gateway.CANDIDATE_ROUTE_STATE_LOADING:
        route.failure.CopyFrom(deployment.failure)
        await _settle(unit, route, gateway.CANDIDATE_ROUTE_STATE_FAILED)
    elif deployment.state == LOADING and route.state == gateway.CANDIDATE_ROUTE_STATE_READY:
        await _settle(unit, route, gateway.CANDIDATE_ROUTE_STATE_LOADING)


async def _settle(
    unit: Unit, route: gateway.CandidateRoute, state: gateway.CandidateRouteState
) -> gateway.CandidateRoute:
    shown = gateway.CANDIDATE_ROUTE_STATE_READY
    if shown in (route.state, state):
        await store.next_revision(unit)
    domain.settle(route, state)
    return await store.CANDIDATES.update(unit, route)
