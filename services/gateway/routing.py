"""How a rollout and the route of its endpoint move together, inside a unit; who decided so is not known here."""

from __future__ import annotations

from kit.rpc.errors import StateConflict
from kit.store import Unit, failpoint
from services.gateway import domain, store
from sluice.gateway import v1 as gateway
from sluice.types import v1 as types


async def both(unit: Unit, name: str, etag: str = "") -> tuple[gateway.Rollout, gateway.Endpoint]:
    """A rollout and its endpoint. Raises Stale when ``etag`` is given and not the rollout's."""
    rollout = await store.ROLLOUTS.get(unit.session, name)
    if etag and etag != rollout.etag:
        await store.ROLLOUTS.update(unit, rollout, etag)  # raises Stale
    return rollout, await store.ENDPOINTS.get(unit.session, domain.endpoint_of(name))


def check_at(rollout: gateway.Rollout, step: int) -> None:
    """Raises StateConflict when the rollout has left the step that the figures are of."""
    if rollout.state != domain.PROGRESSING or rollout.step != step:
        raise StateConflict(f"rollout `{rollout.name}` is not in step {step} any more")


async def refuse_revoked(unit: Unit, *versions: str) -> None:
    """Raises StateConflict (NOT_APPROVED) when one of the versions was revoked."""
    if revoked := await store.revoked(unit.session, versions):
        raise domain.not_approved(revoked)


async def reroute(unit: Unit, endpoint: gateway.Endpoint, arms: domain.Arms) -> None:
    """The one place where a route changes."""
    await refuse_revoked(unit, *(arm.model_version for arm in arms))
    failpoint("gateway_before_route")
    del endpoint.route[:]
    endpoint.route.extend(arms)
    endpoint.route_revision = await store.next_revision(unit)
    await store.ENDPOINTS.update(unit, endpoint)
    unit.emit(
        gateway.EndpointRerouted(endpoint=endpoint.name, route=endpoint.route, route_revision=endpoint.route_revision),
        endpoint.name,
    )


async def step(
    unit: Unit,
    rollout: gateway.Rollout,
    endpoint: gateway.Endpoint,
    step: int,
    run: gateway.AnalysisRun | None,
) -> None:
    """Enters a step; that of 100 percent is the promotion."""
    weight = rollout.plan.steps[step].weight_percent
    if weight == 100:
        await promote(unit, rollout, endpoint, run.reason if run else "the plan begins with all the traffic")
        return
    await reroute(unit, endpoint, domain.to_step(rollout, step, unit.now))
    await store.ROLLOUTS.update(unit, rollout)
    unit.emit(
        gateway.RolloutAdvanced(
            rollout=rollout.name, model_version=rollout.model_version, weight_percent=weight, analysis_run=run
        ),
        rollout.name,
    )


async def promote(unit: Unit, rollout: gateway.Rollout, endpoint: gateway.Endpoint, reason: str) -> gateway.Rollout:
    """Gives a version all the traffic."""
    rollout.step = len(rollout.plan.steps) - 1
    rollout.step_time.FromDatetime(unit.now)
    domain.end(rollout, endpoint, domain.PROMOTED, reason)
    await reroute(unit, endpoint, domain.only(rollout.model_version))
    unit.emit(
        gateway.RolloutPromoted(
            rollout=rollout.name,
            model_version=rollout.model_version,
            incumbent=rollout.incumbent,
            reason=reason,
        ),
        rollout.name,
    )
    return await store.ROLLOUTS.update(unit, rollout)


async def revert(
    unit: Unit,
    rollout: gateway.Rollout,
    endpoint: gateway.Endpoint,
    reason: str,
    route: domain.Arms,
    run: gateway.AnalysisRun | None = None,
) -> None:
    """Takes the traffic from a version; ``route`` says who has it instead."""
    domain.end(rollout, endpoint, domain.ROLLED_BACK, reason)
    await reroute(unit, endpoint, route)
    await store.ROLLOUTS.update(unit, rollout)
    unit.emit(
        gateway.RolloutReverted(
            rollout=rollout.name, model_version=rollout.model_version, reason=reason, analysis_run=run
        ),
        rollout.name,
    )


async def fail(unit: Unit, rollout: gateway.Rollout, endpoint: gateway.Endpoint, failure: types.Failure) -> None:
    """Ends a rollout whose version never got traffic."""
    domain.end(rollout, endpoint, domain.FAILED, failure.message)
    if failure.reason:
        rollout.failure.CopyFrom(failure)
    await store.ROLLOUTS.update(unit, rollout)
    await store.ENDPOINTS.update(unit, endpoint)
    unit.emit(
        gateway.RolloutFailed(rollout=rollout.name, model_version=rollout.model_version, reason=failure.message),
        rollout.name,
    )
