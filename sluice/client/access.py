"""Keys, projects and gate policies: who may, where, and under which rules."""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from datetime import datetime

from kit.rpc.errors import Invalid
from sluice.client import names
from sluice.client.connection import Connection, gather
from sluice.registry import v1 as registry
from sluice.types import v1 as types

ROLES = tuple(name.removeprefix("ROLE_").lower() for name in types.Role.keys()[1:])


def role(name: str) -> str:
    """`operations` gives ROLE_OPERATIONS; raises Invalid naming the roles there are."""
    if name not in ROLES:
        raise Invalid(f"there is no role `{name}`; there are {', '.join(ROLES)}")
    return f"ROLE_{name.upper()}"


class Keys:
    """``client.keys``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._keys = registry.ApiKeyServiceStub(connection.channel)

    async def create(
        self, name: str, roles: Iterable[str], expire_time: datetime | None = None, *, everywhere: bool = False
    ) -> registry.CreateApiKeyResponse:
        """Makes a key with these roles in the project, or in all; ``secret`` is in the answer and never again."""
        key = registry.ApiKey(display_name=name)
        for word in roles:
            key.role_bindings.add(project="projects/-" if everywhere else self._connection.project, role=role(word))
        if expire_time:
            key.expire_time.FromDatetime(expire_time)
        request = registry.CreateApiKeyRequest(parent=self._connection.project, api_key=key)
        return await self._connection.call(self._keys.CreateApiKey, request)

    async def list(self, limit: int = 0) -> builtins.list[registry.ApiKey]:
        """The keys of the project, without secrets."""
        request = registry.ListApiKeysRequest(parent=self._connection.project)
        method = self._keys.ListApiKeys
        return await gather(self._connection.pages(method, request, lambda page: page.api_keys, limit=limit))

    async def revoke(self, name: str, etag: str = "") -> registry.ApiKey:
        """Revokes a key; it stops working everywhere within a second."""
        request = registry.RevokeApiKeyRequest(name=names.api_key(self._connection.project, name), etag=etag)
        answer: registry.RevokeApiKeyResponse = await self._connection.call(self._keys.RevokeApiKey, request)
        return answer.api_key

    async def whoami(self) -> registry.WhoAmIResponse:
        """Who this client is, by its key."""
        return await self._connection.call(self._keys.WhoAmI, registry.WhoAmIRequest())


class Projects:
    """``client.projects``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._projects = registry.ProjectServiceStub(connection.channel)

    async def create(self, display_name: str) -> registry.Project:
        """Creates a project; only an administrator of all projects may."""
        request = registry.CreateProjectRequest(project=registry.Project(display_name=display_name))
        answer: registry.CreateProjectResponse = await self._connection.call(self._projects.CreateProject, request)
        return answer.project

    async def get(self, name: str) -> registry.Project:
        """One project by id; raises NotFound."""
        request = registry.GetProjectRequest(name=names.project(name))
        answer: registry.GetProjectResponse = await self._connection.call(self._projects.GetProject, request)
        return answer.project

    async def list(self, limit: int = 0) -> builtins.list[registry.Project]:
        """The projects that the key has a role in."""
        request, method = registry.ListProjectsRequest(), self._projects.ListProjects
        return await gather(self._connection.pages(method, request, lambda page: page.projects, limit=limit))


class GatePolicies:
    """``client.gate_policies``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._policies = registry.GatePolicyServiceStub(connection.channel)

    async def create(self, policy_id: str, policy: registry.GatePolicy) -> registry.GatePolicy:
        """Creates a policy; raises AlreadyExists."""
        request = registry.CreateGatePolicyRequest(
            parent=self._connection.project, gate_policy_id=policy_id, gate_policy=policy
        )
        answer: registry.CreateGatePolicyResponse = await self._connection.call(
            self._policies.CreateGatePolicy, request
        )
        return answer.gate_policy

    async def update(self, policy_id: str, policy: registry.GatePolicy) -> registry.GatePolicy:
        """Replaces a policy whole, for versions that the gate has yet to decide on.

        Raises Stale when the etag in ``policy`` is old, and StateConflict for a built-in one.
        """
        wanted = registry.GatePolicy()
        wanted.CopyFrom(policy)
        wanted.name = names.gate_policy(self._connection.project, policy_id)
        request = registry.UpdateGatePolicyRequest(gate_policy=wanted)
        answer: registry.UpdateGatePolicyResponse = await self._connection.call(
            self._policies.UpdateGatePolicy, request
        )
        return answer.gate_policy

    async def get(self, policy_id: str) -> registry.GatePolicy:
        """One policy by id; raises NotFound."""
        request = registry.GetGatePolicyRequest(name=names.gate_policy(self._connection.project, policy_id))
        answer: registry.GetGatePolicyResponse = await self._connection.call(self._policies.GetGatePolicy, request)
        return answer.gate_policy

    async def list(self, limit: int = 0) -> builtins.list[registry.GatePolicy]:
        """The policies of the project, built-in ones included."""
        request = registry.ListGatePoliciesRequest(parent=self._connection.project)
        method = self._policies.ListGatePolicies
        return await gather(self._connection.pages(method, request, lambda page: page.gate_policies, limit=limit))
