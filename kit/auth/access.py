"""The two questions before every rpc: who calls, and may they; it reads no database and calls nobody."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from kit.auth.principal import ALL_PROJECTS, Principal
from kit.auth.snapshot import AccessSnapshot
from kit.auth.tokens import Verifier, utc_now
from kit.rpc.errors import Denied, Unauthenticated, Unavailable
from sluice.errors import v1 as errors
from sluice.types import v1 as types

Metadata = Sequence[tuple[str, str | bytes]]

_READERS = frozenset(types.Role.values()) - {types.ROLE_UNSPECIFIED, types.ROLE_INFERENCE}
_ANONYMOUS = Principal("anonymous", frozenset({(ALL_PROJECTS, int(types.ROLE_ADMIN))}))


class Authenticator:
    """Turns the metadata of a call into its principal.

    `service` is the bare name of the service that answers: tokens must be meant for it. With
    `enabled=False` everyone without a valid service token is the administrator `anonymous`; the caller
    says so loudly at start.
    """

    def __init__(
        self,
        snapshot: AccessSnapshot,
        verifier: Verifier,
        *,
        service: str,
        enabled: bool = True,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._snapshot = snapshot
        self._verifier = verifier
        self._service = service
        self._enabled = enabled
        self._clock = clock

    def __call__(self, metadata: Metadata | None) -> Principal:
        """Return the principal.

        Raises Unauthenticated (MISSING_CREDENTIALS, INVALID_CREDENTIALS), and Unavailable while no keys have
        arrived from the registry yet.
        """
        if not self._enabled:
            return self._service_or_anonymous(metadata)
        credential = bearer(metadata)
        if credential.count(".") == 2:  # a token of a service (RFC 7519), which no key looks like
            return self._verifier.verify(credential, self._service)
        if not self._snapshot.ready:
            raise Unavailable(
                "the keys have not arrived from the registry yet; try again in a second",
                reason=errors.ERROR_REASON_SERVICE_UNAVAILABLE,
                retry_after_s=1.0,
            )
        principal = self._snapshot.table.find(credential, self._clock())
        if principal is None:
            raise Unauthenticated(
                "the key is unknown, expired or revoked; set SLUICE_API_KEY to one that works",
                reason=errors.ERROR_REASON_INVALID_CREDENTIALS,
            )
        return principal

    def _service_or_anonymous(self, metadata: Metadata | None) -> Principal:
        try:
            return self._verifier.verify(bearer(metadata), self._service)
        except Unauthenticated:
            return _ANONYMOUS


def bearer(metadata: Metadata | None) -> str:
    """Return the credential of `authorization: Bearer …`; Unauthenticated when there is not exactly one."""
    values = [value for key, value in metadata or () if key.lower() == "authorization"]
    if not values:
        raise Unauthenticated("no key was sent; set SLUICE_API_KEY", reason=errors.ERROR_REASON_MISSING_CREDENTIALS)
    scheme, _, credential = str(values[0]).partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer" or not credential.strip():
        raise Unauthenticated(
            "the authorization header is not one `Bearer <key>`; set SLUICE_API_KEY",
            reason=errors.ERROR_REASON_INVALID_CREDENTIALS,
        )
    return credential.strip()


def authorize(principal: Principal, access: types.Access, project: str) -> None:
    """Return when the principal may call an rpc that declares `access` on something in `project`.

    `project` is `projects/{project}`, `projects/-` for an rpc across all of them, or empty for one that
    names none (`ListProjects`): then any reader passes where readers may, as the rpc shows to each what is
    theirs, and everything else needs a role in all projects. An rpc that declares nothing but services tells
    what no key may have, such as the keys of engines: not even an administrator's.

    Raises Denied (ROLE_REQUIRED). What it says depends on the principal and on the name that was typed,
    never on whether such a project exists.
    """
    if principal.service and principal.service in access.services:
        return
    if access.services and not (access.roles or access.reader or access.anyone):
        raise _for_services(principal, access)
    held = principal.roles(project or ALL_PROJECTS)
    readable = held or (frozenset(role for _, role in principal.bindings) if not project else frozenset())
    if access.anyone or types.ROLE_ADMIN in held or not held.isdisjoint(access.roles):
        return
    if access.reader and not readable.isdisjoint(_READERS):
        return
    raise Denied(
        _refusal(principal, access, project, held),
        reason=errors.ERROR_REASON_ROLE_REQUIRED,
        metadata={"project": project or ALL_PROJECTS, "roles": ",".join(_needed(access))},
    )


def _for_services(principal: Principal, access: types.Access) -> Denied:
    who = " and ".join(f"`services/{name}`" for name in access.services)
    return Denied(
        f"`{principal.name}` may not call this; it is for {who} alone",
        reason=errors.ERROR_REASON_ROLE_REQUIRED,
        metadata={"services": ",".join(access.services)},
    )


def _refusal(principal: Principal, access: types.Access, project: str, held: frozenset[int]) -> str:
    where = "all projects" if project in ("", ALL_PROJECTS) else f"`{project}`"
    needed = " or ".join(_needed(access))
    if principal.service:
        return f"`{principal.name}` may not call this; it is for {needed} in {where}"
    if not held:
        mistyped = "" if where == "all projects" else ", or the name is mistyped"
        return f"`{principal.name}` has no role in {where}; it needs {needed}{mistyped}"
    has = ", ".join(_words(held))
    return f"`{principal.name}` is {has} in {where} and needs {needed}; ask an administrator for the role"


def _needed(access: types.Access) -> list[str]:
    if access.reader:
        return ["any role but inference"]
    return _words(access.roles) or ["admin"]


def _words(roles: Iterable[int]) -> list[str]:
    return sorted(types.Role.Name(types.Role.ValueType(role)).removeprefix("ROLE_").lower() for role in roles)
