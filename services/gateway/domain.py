"""What endpoints, rollouts, deployments and candidate routes are and may become; pure, time is an argument."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from kit.rpc.errors import Fault, Invalid, StateConflict
from kit.rpc.names import id_of, parent_of, project_of, uuid7
from services.gateway.steps import complete
from sluice import lifecycle
from sluice.errors import v1 as errors
from sluice.gateway import v1 as gateway
from sluice.types import v1 as types

NAMESPACE = uuid.UUID("6d1f9d8e-6f0c-5f0e-9f5c-2f6a1f7f4a11")
RUNS_KEPT = 100

PENDING, PREPARING = gateway.ROLLOUT_STATE_PENDING, gateway.ROLLOUT_STATE_PREPARING
PROGRESSING, PROMOTED = gateway.ROLLOUT_STATE_PROGRESSING, gateway.ROLLOUT_STATE_PROMOTED
ROLLED_BACK, FAILED = gateway.ROLLOUT_STATE_ROLLED_BACK, gateway.ROLLOUT_STATE_FAILED
ACTIVE = (PREPARING, PROGRESSING)
LIVE = (PENDING, *ACTIVE)
DEPLOYED = (
    gateway.DEPLOYMENT_STATE_PENDING,
    gateway.DEPLOYMENT_STATE_LOADING,
    gateway.DEPLOYMENT_STATE_READY,
    gateway.DEPLOYMENT_STATE_FAILED,
)
ROUTED = (gateway.CANDIDATE_ROUTE_STATE_LOADING, gateway.CANDIDATE_ROUTE_STATE_READY)
Arms = list[gateway.Arm]


# Endpoints and their routes


def new_endpoint(
    parent: str, endpoint_id: str, interface: str = "", plan: gateway.RolloutPlan | None = None
) -> gateway.Endpoint:
    """An endpoint without traffic. The interface of one made for a version is set when that is read."""
    endpoint = gateway.Endpoint(name=f"{parent}/endpoints/{endpoint_id}", interface=interface)
    if plan is not None:
        endpoint.rollout_plan.CopyFrom(plan)
    return endpoint


def check_plan(plan: gateway.RolloutPlan) -> None:
    """Raises Invalid when the steps do not rise to 100."""
    weights = [step.weight_percent for step in plan.steps]
    if weights != sorted(set(weights)) or weights[-1] != 100:
        raise Invalid(
            f"the steps of the rollout plan are {weights}; let the weights rise, the last one 100",
            violations=[("rollout_plan.steps", "do not rise to 100")],
        )


def stable_of(endpoint: gateway.Endpoint) -> str:
    """The trusted version of a route; empty when there is none."""
    return next((arm.model_version for arm in endpoint.route if arm.role == gateway.ARM_ROLE_STABLE), "")


def only(version: str) -> Arms:
    """A route to one version, or to nobody when it is empty."""
    arm = gateway.Arm(model_version=version, role=gateway.ARM_ROLE_STABLE, weight_percent=100)
    return [arm] if version else []


def split(stable: str, candidate: str, weight: int) -> Arms:
    """A route that tries a candidate on ``weight`` percent of the sessions."""
    return [
        gateway.Arm(model_version=stable, role=gateway.ARM_ROLE_STABLE, weight_percent=100 - weight),
        gateway.Arm(model_version=candidate, role=gateway.ARM_ROLE_CANDIDATE, weight_percent=weight),
    ]


# Rollouts


def rollout_name(endpoint: str, version: str) -> str:
    """The name of the rollout that an approval causes: the same for the same approval."""
    return f"{endpoint}/rollouts/{uuid.uuid5(NAMESPACE, f'{endpoint} {version}')}"


def endpoint_of(rollout: str) -> str:
    """The endpoint of a rollout."""
    return parent_of(rollout)


def check_project(rollout: str, version: str) -> None:
    """Raises Invalid when the version belongs to another project than the endpoint: who uses the endpoint has no
    right to that, and who may revoke the version would not see where it serves."""
    if project_of(rollout) != project_of(version):
        raise Invalid(
            f"`{version}` is not in `{project_of(rollout)}`; a version serves at endpoints of its own project",
            violations=[("model_version", "is of another project than the endpoint")],
        )


def new_rollout(name: str, version: str, creator: str, traceparent: str) -> gateway.Rollout:
    """A rollout that waits for its turn."""
    return gateway.Rollout(name=name, model_version=version, state=PENDING, creator=creator, traceparent=traceparent)


def enter(rollout: gateway.Rollout, state: gateway.RolloutState) -> None:
    """Moves a rollout on. Raises StateConflict when its life cycle does not allow it."""
    if not lifecycle.can(lifecycle.ROLLOUT, rollout.state, state):
        raise StateConflict(
            f"rollout `{rollout.name}` is {word(rollout.state)} and cannot become {word(state)}",
            resource=("Rollout", rollout.name),
        )
    rollout.state = state


def begin(rollout: gateway.Rollout, endpoint: gateway.Endpoint, interface: str) -> None:
    """Takes the turn of an endpoint. Raises StateConflict when the version cannot be let in there."""
    if endpoint.interface and endpoint.interface != interface:
        raise StateConflict(
            f"`{rollout.model_version}` serves {interface} and `{endpoint.name}` serves {endpoint.interface}; "
            "give the model another endpoint",
            reason=errors.ERROR_REASON_INTERFACE_MISMATCH,
        )
    if stable_of(endpoint) == rollout.model_version:
        raise StateConflict(f"`{rollout.model_version}` serves `{endpoint.name}` already; nothing is to be done")
    enter(rollout, PREPARING)
    rollout.incumbent = stable_of(endpoint)
    rollout.plan.CopyFrom(complete(endpoint.rollout_plan))
    endpoint.interface = interface
    endpoint.active_rollout = rollout.name


def to_step(rollout: gateway.Rollout, step: int, now: datetime) -> Arms:
    """Enters a step below 100 and returns the route of it."""
    if rollout.state != PROGRESSING:
        enter(rollout, PROGRESSING)
    rollout.step = step
    rollout.step_time.FromDatetime(now)
    return split(rollout.incumbent, rollout.model_version, rollout.plan.steps[step].weight_percent)


def end(rollout: gateway.Rollout, endpoint: gateway.Endpoint, state: gateway.RolloutState, reason: str) -> None:
    """Ends a rollout and frees its endpoint for the next."""
    enter(rollout, state)
    rollout.reason = reason
    if endpoint.active_rollout == rollout.name:
        endpoint.active_rollout = ""


def record(rollout: gateway.Rollout, run: gateway.AnalysisRun) -> None:
    """Keeps a look at the figures, and the last hundred of them."""
    rollout.analysis_runs.append(run)
    del rollout.analysis_runs[:-RUNS_KEPT]


def check_can_return(rollout: gateway.Rollout, endpoint: gateway.Endpoint) -> None:
    """Raises StateConflict when a promoted version does not serve by itself any more."""
    if endpoint.active_rollout:
        raise StateConflict(
            f"`{endpoint.active_rollout}` is under way on top of `{rollout.name}`; roll that back first",
            resource=("Rollout", rollout.name),
        )
    if stable_of(endpoint) != rollout.model_version:
        raise StateConflict(
            f"`{rollout.model_version}` has no traffic of `{endpoint.name}` any more; there is nothing to take away",
            resource=("Rollout", rollout.name),
        )


# Deployments and candidate routes


def new_deployment(version: str, traceparent: str) -> gateway.Deployment:
    """A deployment that no host has yet."""
    return gateway.Deployment(
        name=f"{project_of(version)}/deployments/{uuid7()}",
        model_version=version,
        state=gateway.DEPLOYMENT_STATE_PENDING,
        traceparent=traceparent,
    )


def deploy(deployment: gateway.Deployment, state: gateway.DeploymentState) -> None:
    """Moves a deployment on. Raises StateConflict when its life cycle does not allow it."""
    _enter(deployment, lifecycle.DEPLOYMENT, gateway.DeploymentState, state, "deployment")


def new_candidate(parent: str, version: str, now: datetime, lease_s: float) -> gateway.CandidateRoute:
    """A candidate route that loads."""
    route = gateway.CandidateRoute(
        name=f"{parent}/candidateRoutes/{uuid7()}",
        model_version=version,
        state=gateway.CANDIDATE_ROUTE_STATE_LOADING,
    )
    route.model = f"candidate-{id_of(route.name)[-12:]}"
    route.expire_time.FromDatetime(now + timedelta(seconds=lease_s))
    return route


def wants_renewal(route: gateway.CandidateRoute, now: datetime, lease_s: float) -> bool:
    """Whether a live route has used a third of its time."""
    left = route.expire_time.ToDatetime(UTC) - now
    return route.state in ROUTED and left <= timedelta(seconds=lease_s * 2 / 3)


def settle(route: gateway.CandidateRoute, state: gateway.CandidateRouteState) -> None:
    """Moves a candidate route on. Raises StateConflict when its life cycle does not allow it."""
    _enter(route, lifecycle.CANDIDATE_ROUTE, gateway.CandidateRouteState, state, "candidate route")


def _enter(
    entity: gateway.Deployment | gateway.CandidateRoute,
    table: lifecycle.Table,
    enum: EnumTypeWrapper,
    state: int,
    noun: str,
) -> None:
    if not lifecycle.can(table, entity.state, state):
        words = [enum.Name(each).rsplit("_STATE_", 1)[1] for each in (entity.state, state)]
        raise StateConflict(f"{noun} `{entity.name}` is {words[0]} and cannot become {words[1]}")
    entity.state = state  # type: ignore[assignment]


# Words


def failure_of(fault: Fault) -> types.Failure:
    """A fault as a resource keeps it."""
    return types.Failure(reason=fault.reason, message=fault.message)  # type: ignore[arg-type]


def not_approved(versions: Iterable[str]) -> StateConflict:
    """For versions that may not serve."""
    names = ", ".join(f"`{version}`" for version in versions)
    return StateConflict(
        f"{names} is not approved; only an approved version may have traffic",
        reason=errors.ERROR_REASON_NOT_APPROVED,
    )


def word(state: int) -> str:
    """``PROMOTED`` for its number."""
    return gateway.RolloutState.Name(state).removeprefix("ROLLOUT_STATE_")
