"""Who may ask for which version, decided over immutable snapshots; pure: no I/O, no clock and no HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

from services.gateway.worker.errors import AmbiguousModel, Denied, ModelNotFound, NotReady, Unauthenticated
from services.gateway.worker.snapshot import (
    Arm,
    Candidate,
    KeyTable,
    Principal,
    Route,
    RouteTable,
    Upstream,
    digest,
)

INFERENCE_ROLES = frozenset({"inference", "admin", "engineering", "algorithm", "operations"})
EVALUATOR = "services/evaluator"
TRAINER = "services/trainer"
#: Services that ask for others: the evaluator for its questions, the trainer where an endpoint of a job's own project
#: grades what its model says.
ASKING = (EVALUATOR, TRAINER)
BUCKETS = 10_000

VerifyToken = Callable[[str], Principal | None]


class Target(NamedTuple):
    """Where one admitted request goes. `endpoint` labels figures, with a suffix where those are not its users';
    `weighted` means the route's weights chose it. `interface` is what its endpoint serves, empty where that is not
    known.
    """

    endpoint: str
    version: str
    engine: Upstream
    revision: int
    weighted: bool = False
    interface: str = ""


def authenticate(
    header: bytes | None, keys: KeyTable | None, now: float, verify_token: VerifyToken | None = None
) -> Principal:
    """The principal behind an Authorization header. Raises Unauthenticated, or NotReady before the first key
    table.

    A credential of three dot-separated parts is a service's token, anything else an API key.
    """
    if header is None:
        raise Unauthenticated("No API key was sent; set the header `Authorization: Bearer <key>`.")
    scheme, _, credential = header.partition(b" ")
    credential = credential.strip()
    if scheme.lower() != b"bearer" or not credential:
        raise Unauthenticated("The Authorization header is not a bearer credential; send `Bearer <key>`.")
    if verify_token is not None and credential.count(b".") == 2:
        principal = verify_token(credential.decode("latin-1"))
    elif keys is None:
        raise NotReady("The gateway has not received its keys yet; try again in a moment.")
    else:
        principal = keys.principals.get(digest(credential))
    if principal is None or (principal.expires_at is not None and principal.expires_at <= now):
        raise Unauthenticated("The API key is unknown, expired or revoked; use a valid key.")
    return principal


def may_infer(principal: Principal) -> Principal:
    """The principal itself; raises Denied when none of its roles, wherever, allows inference."""
    if not principal.has_role(INFERENCE_ROLES) and principal.name not in ASKING:
        raise Denied("This key's roles do not allow inference; ask an admin for the role `inference`.")
    return principal


def session_key(header: bytes | None, user: str | None, principal: Principal) -> bytes:
    """What makes a caller sticky: header `x-sluice-session`, then the body's `user`, then the key."""
    if header:
        return header
    return (user or principal.name).encode("utf-8", "surrogatepass")


def bucket(salt: str, session: bytes) -> int:
    """A session's fixed place in [0, 10000): BLAKE2b (RFC 7693) of salt and session, 64 bits, modulo."""
    value = hashlib.blake2b(salt.encode() + b"\0" + session, digest_size=8).digest()
    return int.from_bytes(value, "big") % BUCKETS


def choose_arm(route: Route, session: bytes) -> Arm:
    """The arm that serves this session. Raises NotReady when no arm has weight.

    The candidate owns the lowest `weight` percent of the buckets, so raising its weight only moves sessions
    to it and lowering it only moves them back.
    """
    candidate, stable = route.arm("candidate"), route.arm("stable")
    if candidate is not None and candidate.weight_percent:
        share = candidate.weight_percent * (BUCKETS // 100)
        if share == BUCKETS or bucket(route.salt, session) < share:
            return candidate
    if stable is None or not stable.weight_percent:
        raise NotReady(f"No version of {route.slug} serves yet; wait for its first rollout.")
    return stable


def resolve(model: str, table: RouteTable, principal: Principal) -> Route | Target:
    """What `model` names: a route to choose an arm of, or one explicit version.

    `endpoint`, `endpoint@7`, `endpoint@model@7` where versions of several models serve, and for the evaluator
    `endpoint:candidate` and `candidate-…`; an endpoint is its slug or its resource name. Raises ModelNotFound (another
    project's endpoints do not exist), AmbiguousModel and Denied.
    """
    candidate = table.candidates.get(model)
    if candidate is not None and candidate.principal == principal.name:
        return _judged(candidate, table)
    name, at, version = model.partition("@")
    name, colon, arm_label = name.partition(":")
    route = _route(name, table, principal)
    if route is None or (at and colon) or (colon and arm_label != "candidate"):
        raise ModelNotFound(model)
    if colon and principal.name != EVALUATOR:
        raise Denied(f"`{model}` is reserved for the evaluator; ask for `{name}`.")
    if at:
        of, named, number = version.rpartition("@")
        wanted = f"/{of}/versions/{number}" if named else f"/versions/{number}"
        arm = next((arm for arm in route.arms if arm.version.endswith(wanted)), None)
    elif colon:
        arm = route.arm("candidate")
    else:
        return route
    if arm is None:
        raise ModelNotFound(model)
    label = f"{route.endpoint}:candidate" if principal.name == EVALUATOR else _label(route, principal)
    return Target(label, arm.version, arm.engine, table.revision, interface=route.interface)


def admit(model: str, session: bytes, table: RouteTable, principal: Principal) -> Target:
    """Resolve and choose in one step, over one table: what it returns was allowed to serve at
    `table.revision`.
    """
    found = resolve(model, table, principal)
    if isinstance(found, Target):
        return found
    arm = choose_arm(found, session)
    return Target(_label(found, principal), arm.version, arm.engine, table.revision, True, found.interface)


def stable_instead(target: Target, table: RouteTable) -> Target | None:
    """The stable version to serve when a weighted choice's engine can't be reached; read from the table of
    now.
    """
    route = table.endpoints.get(target.endpoint.partition(":")[0]) if target.weighted else None
    arm = route.arm("stable") if route is not None else None
    if arm is None or not arm.weight_percent or arm.version == target.version:
        return None
    return target._replace(version=arm.version, engine=arm.engine, revision=table.revision)


def visible(table: RouteTable, principal: Principal) -> list[str]:
    """The names `/v1/models` shows this principal, sorted."""
    mine = (route for route in table.endpoints.values() if principal.has_role(INFERENCE_ROLES, route.project))
    routes = [route.slug if _usable(route.slug, table, principal) == [route] else route.endpoint for route in mine]
    judged = [each.slug for each in table.candidates.values() if each.principal == principal.name]
    return sorted(routes + judged)


def interface_of(model: str, table: RouteTable, principal: Principal) -> str:
    """What a name that is visible serves; empty where that is not known."""
    return resolve(model, table, principal).interface


def _label(route: Route, principal: Principal) -> str:
    """What figures are kept under: those of a job's grading apart, as the evaluator's, for a rollout is judged by what
    users ask.
    """
    return f"{route.endpoint}:judge" if principal.name == TRAINER else route.endpoint


def _judged(candidate: Candidate, table: RouteTable) -> Target:
    return Target(candidate.name, candidate.version, candidate.engine, table.revision)


def _route(name: str, table: RouteTable, principal: Principal) -> Route | None:
    if "/" in name:
        route = table.endpoints.get(name)
        return route if route is not None and _may_use(principal, route.project) else None
    routes = _usable(name, table, principal)
    if len(routes) > 1:
        raise AmbiguousModel(name, routes[0].endpoint)
    return routes[0] if routes else None


def _usable(slug: str, table: RouteTable, principal: Principal) -> list[Route]:
    """The routes of that slug the principal may use; a key's own project goes before others."""
    routes = [route for route in table.named(slug) if _may_use(principal, route.project)]
    if len(routes) < 2:
        return routes
    return [route for route in routes if principal.name.startswith(f"{route.project}/")] or routes


def _may_use(principal: Principal, project: str) -> bool:
    return principal.name in ASKING or principal.has_role(INFERENCE_ROLES, project)
