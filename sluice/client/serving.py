"""Endpoints, the rollouts that change who serves them, and the deployments behind."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator

from kit.rpc.errors import NotFound
from sluice.client import names, resolve
from sluice.client.connection import Connection, gather
from sluice.client.models import Models
from sluice.gateway import v1 as gateway

OVER = (gateway.ROLLOUT_STATE_PROMOTED, gateway.ROLLOUT_STATE_ROLLED_BACK, gateway.ROLLOUT_STATE_FAILED)


def is_over(rollout: gateway.Rollout) -> bool:
    """Whether the rollout goes no further by itself."""
    return rollout.state in OVER


class Endpoints:
    """``client.endpoints``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._endpoints = gateway.EndpointServiceStub(connection.channel)

    async def get(self, endpoint: str) -> gateway.Endpoint:
        """One endpoint by id; raises NotFound."""
        request = gateway.GetEndpointRequest(name=names.endpoint(self._connection.project, endpoint))
        answer: gateway.GetEndpointResponse = await self._connection.call(self._endpoints.GetEndpoint, request)
        return answer.endpoint

    async def list(self, limit: int = 0) -> builtins.list[gateway.Endpoint]:
        """The endpoints of the project by name."""
        request = gateway.ListEndpointsRequest(parent=self._connection.project)
        method = self._endpoints.ListEndpoints
        return await gather(self._connection.pages(method, request, lambda page: page.endpoints, limit=limit))

    async def create(self, endpoint: str, interface: str, plan: gateway.RolloutPlan | None = None) -> gateway.Endpoint:
        """Creates an endpoint without traffic; an approved version makes its own where it is missing."""
        request = gateway.CreateEndpointRequest(
            parent=self._connection.project,
            endpoint_id=endpoint,
            endpoint=gateway.Endpoint(interface=interface, rollout_plan=plan),
        )
        answer: gateway.CreateEndpointResponse = await self._connection.call(self._endpoints.CreateEndpoint, request)
        return answer.endpoint

    async def set_plan(self, endpoint: str, plan: gateway.RolloutPlan, etag: str = "") -> gateway.Endpoint:
        """Changes how new versions are let in; raises Stale when ``etag`` is old."""
        name = names.endpoint(self._connection.project, endpoint)
        request = gateway.UpdateEndpointRequest(endpoint=gateway.Endpoint(name=name, rollout_plan=plan, etag=etag))
        request.update_mask.paths.append("rollout_plan")
        answer: gateway.UpdateEndpointResponse = await self._connection.call(self._endpoints.UpdateEndpoint, request)
        return answer.endpoint


class Deployments:
    """``client.deployments``: which versions are in an engine, and where."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._deployments = gateway.DeploymentServiceStub(connection.channel)

    async def list(self, filter: str = "", limit: int = 0) -> builtins.list[gateway.Deployment]:
        """The deployments of the project, newest first."""
        request = gateway.ListDeploymentsRequest(parent=self._connection.project, filter=filter)
        method = self._deployments.ListDeployments
        return await gather(self._connection.pages(method, request, lambda page: page.deployments, limit=limit))


class Rollouts:
    """``client.rollouts``. One is named by its UUID, the beginning of it, or whose newest it is: of an endpoint,
    a version such as `bank-bot@3`, or a model, which means its newest version."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rollouts = gateway.RolloutServiceStub(connection.channel)

    async def create(self, endpoint: str, model_version: str) -> gateway.Rollout:
        """Starts a rollout of an approved version by hand; raises StateConflict when it is not approved."""
        request = gateway.CreateRolloutRequest(
            parent=names.endpoint(self._connection.project, endpoint),
            model_version=await Models(self._connection).numbered(model_version),
        )
        answer: gateway.CreateRolloutResponse = await self._connection.call(self._rollouts.CreateRollout, request)
        return answer.rollout

    async def get(self, rollout: str) -> gateway.Rollout:
        """One rollout; raises NotFound."""
        request = gateway.GetRolloutRequest(name=await self._name(rollout))
        answer: gateway.GetRolloutResponse = await self._connection.call(self._rollouts.GetRollout, request)
        return answer.rollout

    async def list(self, endpoint: str = "-", filter: str = "", limit: int = 0) -> builtins.list[gateway.Rollout]:
        """The rollouts of an endpoint, or of all, newest first."""
        return await gather(self._pages(endpoint, filter, limit))

    async def watch(self, rollout: str) -> AsyncIterator[gateway.Rollout]:
        """The rollout as it stands and each time it changes, until it is over."""
        request = gateway.WatchRolloutRequest(name=await self._name(rollout))

        async def snapshots() -> AsyncIterator[gateway.Rollout]:
            async for answer in self._connection.stream(self._rollouts.WatchRollout, request):
                yield answer.rollout

        async for snapshot in self._connection.follow(snapshots, is_over):
            yield snapshot

    async def promote(self, rollout: str, reason: str = "", etag: str = "") -> gateway.Rollout:
        """Gives the version all the traffic now."""
        request = gateway.PromoteRolloutRequest(name=await self._name(rollout), reason=reason, etag=etag)
        answer: gateway.PromoteRolloutResponse = await self._connection.call(self._rollouts.PromoteRollout, request)
        return answer.rollout

    async def rollback(self, rollout: str, reason: str = "", etag: str = "") -> gateway.Rollout:
        """Takes the traffic away; when it returns, no worker admits a request to the version any more."""
        request = gateway.RollbackRolloutRequest(name=await self._name(rollout), reason=reason, etag=etag)
        answer: gateway.RollbackRolloutResponse = await self._connection.call(self._rollouts.RollbackRollout, request)
        return answer.rollout

    def _pages(self, endpoint: str, filter: str, limit: int) -> AsyncIterator[gateway.Rollout]:
        parent = names.endpoint(self._connection.project, endpoint)
        request = gateway.ListRolloutsRequest(parent=parent, filter=filter)
        return self._connection.pages(self._rollouts.ListRollouts, request, lambda page: page.rollouts, limit=limit)

    async def _name(self, rollout: str) -> str:
        if rollout.startswith("projects/"):
            return rollout
        if names.is_uuid_start(rollout):
            found = [
                item.name
                async for item in self._pages("-", "", resolve.DEPTH)
                if item.name.rsplit("/", 1)[-1].startswith(rollout)
            ]
            if found or names.is_uuid(rollout):
                return names.only(found, rollout, "rollout")
        missing = f"`{rollout}` has no rollout yet; an approved version gets one by itself"
        if "@" not in rollout:
            async for item in self._pages(rollout, "", 1):
                return item.name
        try:
            version = await Models(self._connection).numbered(rollout)
        except NotFound:
            raise NotFound(missing) from None
        return await resolve.newest(self._pages("-", f'model_version = "{version}"', 1), missing)
