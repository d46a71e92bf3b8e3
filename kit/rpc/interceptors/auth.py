"""Who calls and may they, before the servicer sees anything; it knows neither keys nor roles."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from google.protobuf import descriptor_pool

from kit import telemetry
from kit.auth.principal import ALL_PROJECTS, Principal
from kit.rpc.call import Call, enter
from kit.rpc.errors import Denied, NotFound
from kit.rpc.interceptors.faults import refusing
from kit.rpc.interceptors.layer import Context, Handler, Layer, is_open, is_passed_through
from kit.rpc.projects import projects_of
from sluice.types import v1 as types

Metadata = Sequence[tuple[str, str | bytes]]
Authenticate = Callable[[Metadata], Principal]
Authorize = Callable[[Principal, types.Access, str], None]
HasProject = Callable[[str], Awaitable[bool]]
#: Told the message of a call that its caller has no role for, while that call is the present one.
Refused = Callable[[Any], Awaitable[None]]
READER = types.Access(reader=True)


class Auth(Layer):
    """Reads the Access option off the method; a method without one is refused.

    The first project that the first message names decides; who names further ones must be a reader there. Nothing is
    made or listed in a project that does not exist, which only those learn who may do so in all projects.
    """

    def __init__(
        self,
        authenticate: Authenticate,
        authorize: Authorize,
        has_project: HasProject | None = None,
        refused: Refused | None = None,
    ) -> None:
        self._authenticate = authenticate
        self._authorize = authorize
        self._has_project = has_project
        self._refused = refused

    def applies(self, method: str, handler: Handler) -> bool:
        """Health and reflection are open; of what is passed through, the service behind is the judge."""
        return not is_open(method) and not is_passed_through(handler)

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[Principal]:
        """Finds the principal and makes the call the present one."""
        async with refusing(method, context):
            principal = self._authenticate(tuple(context.invocation_metadata() or ()))
        enter(Call(principal, method, telemetry.current_traceparent()))
        yield principal

    async def on_request(self, method: str, context: Context, state: Any, message: Any, first: bool) -> None:
        """Asks whether the principal may do this in the projects that the first message names.

        A project that a later message of a stream names is asked for in the same way.
        """
        async with refusing(method, context):
            try:
                self._check(method, state, message, first)
            except Denied:
                if self._refused is not None and message is not None:
                    await self._refused(message)
                raise
            await self._check_parent(state, message)

    async def _check_parent(self, principal: Principal, message: Any) -> None:
        project = "/".join(str(getattr(message, "parent", "")).split("/")[:2])
        if self._has_project is None or principal.service or project in ("", ALL_PROJECTS):
            return
        if project.startswith("projects/") and not await self._has_project(project):
            raise NotFound(
                f"project `{project}` does not exist; `sluice projects list` shows those there are",
                resource=("Project", project),
            )

    def _check(self, method: str, principal: Principal, message: Any, first: bool) -> None:
        access = access_of(method)
        named = projects_of(message) if message is not None else []
        if first or named:
            self._authorize(principal, access, named[0] if named else "")
        for project in named[1:]:
            if not principal.service:
                self._authorize(principal, READER, project)


@cache
def access_of(method: str) -> types.Access:
    """The Access option of `/package.Service/Method`; raises Denied where the contract declares none."""
    try:
        found = descriptor_pool.Default().FindMethodByName(method.lstrip("/").replace("/", "."))
    except KeyError:
        found = None
    option: Any = types.access
    if found is None or not found.GetOptions().HasExtension(option):
        raise Denied(f"`{method}` does not declare who may call it; the contract must, by the option `access`")
    access: types.Access = found.GetOptions().Extensions[option]
    return access
