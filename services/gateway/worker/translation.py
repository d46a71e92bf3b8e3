"""Between the contract's messages and the worker's own values; it knows no stream and no process."""

from __future__ import annotations

from collections import defaultdict

from kit.auth import KeyTable as Keys
from kit.auth import Principal as Caller
from services.gateway.worker.figures import Series
from services.gateway.worker.policy import EVALUATOR
from services.gateway.worker.snapshot import (
    Arm,
    Candidate,
    KeyTable,
    Label,
    Principal,
    Route,
    RouteTable,
    Upstream,
)
from sluice.gateway import v1 as gateway
from sluice.types import v1 as types

_LABELS: dict[int, Label] = {gateway.ARM_ROLE_STABLE: "stable", gateway.ARM_ROLE_CANDIDATE: "candidate"}
# Ends that are the version's fault. Others (a refused request, an overload, a client that left, a withdrawal) say
# nothing about it and count neither as requests nor as errors.
FAULTS = frozenset({"engine_error", "unreachable", "timeout", "broken"})


def route_table(table: gateway.RouteTable) -> RouteTable:
    """The table to route by. Raises ValueError, naming what is wrong and no secret, for one that cannot be."""
    routes = [_route(route) for route in table.routes]
    candidates = [
        Candidate(each.candidate_route, each.model, each.model_version, _upstream(each.upstream), EVALUATOR)
        for each in table.candidates
    ]
    endpoints = {route.endpoint: route for route in routes}
    slugs = {candidate.slug: candidate for candidate in candidates}
    if len(endpoints) != len(routes) or len(slugs) != len(candidates):
        raise ValueError("the table names an endpoint or a candidate twice; keep one of each")
    return RouteTable(table.revision, endpoints, slugs)


def _route(route: gateway.Route) -> Route:
    project, _, slug = route.endpoint.partition("/endpoints/")
    arms = tuple(_arm(arm) for arm in route.arms)
    # The version that is tried is part of the salt: else the same sessions were the first in every rollout.
    tried = next((arm.version for arm in arms if arm.label == "candidate"), "")
    return Route(route.endpoint, slug, project, route.interface, arms, f"{route.endpoint} {tried}")


def _arm(routed: gateway.RoutedArm) -> Arm:
    arm = routed.arm
    if arm.role not in _LABELS:
        raise ValueError(f"arm {arm.model_version} has no role; make it stable or candidate")
    return Arm(arm.model_version, _LABELS[arm.role], arm.weight_percent, _upstream(routed.upstream))


def _upstream(upstream: gateway.Upstream) -> Upstream:
    return Upstream(upstream.url, upstream.key, upstream.model)


def key_table(keys: Keys) -> KeyTable:
    """The keys that work, as the data path looks them up."""
    return KeyTable(
        keys.revision,
        {
            digest: principal(caller, expires.timestamp() if expires else None)
            for digest, (caller, expires) in keys.keys.items()
        },
    )


def principal(caller: Caller, expires_at: float | None = None) -> Principal:
    """Who calls, with roles by project in the words of the contract (`inference`)."""
    bindings: defaultdict[str, set[str]] = defaultdict(set)
    for project, role in caller.bindings:
        bindings[project].add(_word(role))
    return Principal(caller.name, {project: frozenset(roles) for project, roles in bindings.items()}, expires_at)


def _word(role: int) -> str:
    if role not in types.Role.values():
        return str(role)  # of a later version of the contract: a role we do not know allows nothing
    return types.Role.Name(types.Role.ValueType(role)).removeprefix("ROLE_").lower()


def arm_sample(series: Series) -> gateway.ArmSample:
    """What a rollout is judged by."""
    faults = sum(count for kind, count in series.errors.items() if kind in FAULTS)
    return gateway.ArmSample(
        endpoint=series.endpoint,
        model_version=series.version,
        requests=series.requests - series.errors.total() + faults,
        errors=faults,
        duration_buckets=series.total.counts,
        ttft_buckets=series.ttft.counts,
        revision=series.revision,
    )
