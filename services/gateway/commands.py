"""What can be done to endpoints and rollouts: one function an intent, inside a unit that the caller opened.

Whoever gives a version traffic has read its approval back before the unit opened; that no revocation has come
meanwhile is checked inside it, where the two cannot pass each other.
"""

from __future__ import annotations

from google.protobuf.field_mask_pb2 import FieldMask

from kit.rpc import masks
from kit.rpc.errors import Stale, StateConflict
from kit.rpc.interceptors.validation import validate
from kit.rpc.names import project_of
from kit.store import Unit
from kit.telemetry import current_traceparent
from services.gateway import domain, loading, routing, store
from sluice.errors import v1 as errors
from sluice.gateway import v1 as gateway
from sluice.types import v1 as types

REVOKED = "its approval was taken away"


async def create_endpoint(
    unit: Unit, parent: str, endpoint_id: str, wanted: gateway.Endpoint | None = None
) -> gateway.Endpoint:
    """Creates an endpoint without traffic."""
    plan = wanted.rollout_plan if wanted and wanted.HasField("rollout_plan") else None
    if plan is not None:
        domain.check_plan(plan)
    endpoint = domain.new_endpoint(parent, endpoint_id, wanted.interface if wanted else "", plan)
    endpoint = await store.ENDPOINTS.insert(unit, endpoint)
    unit.emit(gateway.EndpointCreated(endpoint=endpoint.name), endpoint.name)
    return endpoint


async def update_endpoint(unit: Unit, wanted: gateway.Endpoint, mask: FieldMask) -> gateway.Endpoint:
    """Changes how new versions are let in; a rollout under way keeps the plan it began with."""
    endpoint = await store.ENDPOINTS.get(unit.session, wanted.name)
    masks.apply(endpoint, wanted, mask, ("rollout_plan",))
    if endpoint.HasField("rollout_plan"):
        validate(endpoint.rollout_plan)
        domain.check_plan(endpoint.rollout_plan)
    endpoint = await store.ENDPOINTS.update(unit, endpoint, wanted.etag)
    unit.emit(gateway.EndpointUpdated(endpoint=endpoint), endpoint.name)
    return endpoint


async def let_in(unit: Unit, version: str, endpoint_id: str) -> None:
    """Makes the one rollout that an approval causes, and its endpoint when it is missing."""
    parent = project_of(version)
    name = f"{parent}/endpoints/{endpoint_id}"
    if await store.ROLLOUTS.find(unit.session, name=domain.rollout_name(name, version)):
        return
    found = await store.ENDPOINTS.find(unit.session, name=name)
    endpoint = found[0] if found else await create_endpoint(unit, parent, endpoint_id)
    if await _standing(unit, endpoint, version) or await store.revoked(unit.session, [version]):
        return
    await create_rollout(unit, domain.rollout_name(name, version), version, creator="")


async def create_rollout(unit: Unit, name: str, version: str, creator: str) -> gateway.Rollout:
    """Lines a version up before an endpoint that exists."""
    domain.check_project(name, version)
    endpoint = await store.ENDPOINTS.get(unit.session, domain.endpoint_of(name))
    if standing := await _standing(unit, endpoint, version):
        raise StateConflict(f"`{version}` {standing} at `{endpoint.name}`; nothing is to be done")
    rollout = domain.new_rollout(name, version, creator, current_traceparent())
    rollout = await store.ROLLOUTS.insert(unit, rollout)
    await loading.want(unit, version)
    unit.emit(gateway.RolloutCreated(rollout=name, model_version=version), name)
    return rollout


async def begin_rollout(unit: Unit, name: str, interface: str) -> None:
    """Gives a rollout its turn at the endpoint."""
    rollout, endpoint = await routing.both(unit, name)
    if endpoint.active_rollout:
        raise Stale(f"`{endpoint.name}` has the rollout `{endpoint.active_rollout}` under way; wait for its end")
    await routing.refuse_revoked(unit, rollout.model_version)
    domain.begin(rollout, endpoint, interface)
    for version in filter(None, (rollout.model_version, rollout.incumbent)):
        await loading.want(unit, version)
    await store.ROLLOUTS.update(unit, rollout)
    await store.ENDPOINTS.update(unit, endpoint)


async def start_rollout(unit: Unit, name: str) -> None:
    """Gives a prepared version its first share: all, where nobody served before."""
    rollout, endpoint = await routing.both(unit, name)
    rollout.incumbent = domain.stable_of(endpoint)  # it may have lost its approval since the rollout began
    await loading.require_ready(unit, *filter(None, (rollout.model_version, rollout.incumbent)))
    if rollout.state != domain.PREPARING:
        raise StateConflict(f"rollout `{name}` is {domain.word(rollout.state)} and not about to start")
    if not rollout.incumbent:
        await routing.promote(unit, rollout, endpoint, "the endpoint had no version before")
    else:
        await routing.step(unit, rollout, endpoint, 0, None)


async def advance_rollout(unit: Unit, name: str, step: int, run: gateway.AnalysisRun) -> None:
    """Takes the step after ``step``, which the figures of ``run`` allow."""
    rollout, endpoint = await routing.both(unit, name)
    routing.check_at(rollout, step)
    await loading.require_ready(unit, rollout.model_version)
    domain.record(rollout, run)
    await routing.step(unit, rollout, endpoint, step + 1, run)


async def note_run(unit: Unit, name: str, step: int, run: gateway.AnalysisRun) -> None:
    """Records a look at the figures that changes nothing."""
    rollout = await store.ROLLOUTS.get(unit.session, name)
    routing.check_at(rollout, step)
    domain.record(rollout, run)
    await store.ROLLOUTS.update(unit, rollout)


async def revert_rollout(unit: Unit, name: str, step: int, run: gateway.AnalysisRun) -> None:
    """Gives the traffic back to the incumbent, as the figures of ``run`` demand."""
    rollout, endpoint = await routing.both(unit, name)
    routing.check_at(rollout, step)
    domain.record(rollout, run)
    await routing.revert(unit, rollout, endpoint, run.reason, domain.only(domain.stable_of(endpoint)), run)


async def fail_rollout(unit: Unit, name: str, failure: types.Failure) -> None:
    """Ends a rollout whose version never got traffic."""
    rollout, endpoint = await routing.both(unit, name)
    await routing.fail(unit, rollout, endpoint, failure)


async def promote_rollout(unit: Unit, request: gateway.PromoteRolloutRequest, by: str) -> gateway.Rollout:
    """Gives a version all the traffic now, because a person says so."""
    rollout, endpoint = await routing.both(unit, request.name, request.etag)
    if rollout.state not in domain.ACTIVE:
        raise StateConflict(
            f"rollout `{rollout.name}` is {domain.word(rollout.state)} and cannot be promoted",
            resource=("Rollout", rollout.name),
        )
    await loading.require_ready(unit, rollout.model_version)
    rollout.incumbent = domain.stable_of(endpoint)
    return await routing.promote(unit, rollout, endpoint, request.reason or f"{by} asked for it")


async def rollback_rollout(unit: Unit, request: gateway.RollbackRolloutRequest, by: str) -> gateway.Rollout:
    """Takes the traffic away from a version. Raises StateConflict when what served before cannot take over at once."""
    rollout, endpoint = await routing.both(unit, request.name, request.etag)
    reason = request.reason or f"{by} asked for it"
    if rollout.state in (domain.PENDING, domain.PREPARING):
        # Nobody's fault, so the failure has no reason of the list.
        await routing.fail(unit, rollout, endpoint, types.Failure(message=reason))
    elif rollout.state == domain.PROGRESSING:
        await routing.revert(unit, rollout, endpoint, reason, domain.only(domain.stable_of(endpoint)))
    elif rollout.state == domain.PROMOTED:
        domain.check_can_return(rollout, endpoint)
        if rollout.incumbent:
            await loading.require_ready(unit, rollout.incumbent)
        await routing.revert(unit, rollout, endpoint, reason, domain.only(rollout.incumbent))
    return rollout


async def revoke_version(unit: Unit, version: str) -> None:
    """Takes all traffic from a version at once, and its rollouts back. A repeat changes nothing."""
    await store.mark_revoked(unit, version)
    failure = types.Failure(reason=errors.ERROR_REASON_NOT_APPROVED, message=REVOKED)
    for rollout in await store.ROLLOUTS.find(unit.session, model_version=version, state=domain.LIVE):
        endpoint = await store.ENDPOINTS.get(unit.session, domain.endpoint_of(rollout.name))
        if rollout.state == domain.PROGRESSING:
            await routing.revert(unit, rollout, endpoint, REVOKED, domain.only(domain.stable_of(endpoint)))
        else:
            await routing.fail(unit, rollout, endpoint, failure)
    for endpoint in await store.ENDPOINTS.find(unit.session):
        if domain.stable_of(endpoint) == version:
            await _dethrone(unit, endpoint, version)


async def fall_back(unit: Unit, endpoint_name: str, version: str) -> None:
    """Gives an endpoint that nobody serves to a version that served it before."""
    endpoint = await store.ENDPOINTS.get(unit.session, endpoint_name)
    if endpoint.route or endpoint.active_rollout:
        return
    await loading.want(unit, version)
    await routing.reroute(unit, endpoint, domain.only(version))


async def _dethrone(unit: Unit, endpoint: gateway.Endpoint, version: str) -> None:
    """Takes the traffic from a trusted version. Who serves instead is read back first, so nobody does for a moment."""
    own = {"parent": endpoint.name, "model_version": version, "state": domain.PROMOTED}
    for rollout in await store.ROLLOUTS.find(unit.session, parent=endpoint.name, state=domain.PROGRESSING):
        # A candidate without an incumbent has nothing to be compared with.
        await routing.revert(unit, rollout, endpoint, f"the approval of its incumbent `{version}` was taken away", [])
    promoted = await store.ROLLOUTS.find(unit.session, **own)
    if promoted:
        await routing.revert(unit, promoted[-1], endpoint, REVOKED, [])
    else:
        await routing.reroute(unit, endpoint, [])


async def _standing(unit: Unit, endpoint: gateway.Endpoint, version: str) -> str:
    """Why a version needs no further rollout at an endpoint; empty when it does."""
    if domain.stable_of(endpoint) == version:
        return "serves already"
    live = await store.ROLLOUTS.find(unit.session, parent=endpoint.name, model_version=version, state=domain.LIVE)
    return f"has the rollout `{live[0].name}` under way" if live else ""
