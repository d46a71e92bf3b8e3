"""The rpcs of the gateway but those on rollouts: each calls one command and wraps the answer."""

from __future__ import annotations

from typing import Any

from kit.store import Database, Unit
from services.gateway import commands, domain, loading, store
from services.gateway.approvals import Approvals
from sluice.gateway import v1 as gateway

Context = Any


class EndpointServicer(gateway.EndpointServiceServicer):
    """Endpoints by name."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def CreateEndpoint(
        self, request: gateway.CreateEndpointRequest, context: Context
    ) -> gateway.CreateEndpointResponse:
        async def work(unit: Unit) -> gateway.CreateEndpointResponse:
            created = await commands.create_endpoint(unit, request.parent, request.endpoint_id, request.endpoint)
            return gateway.CreateEndpointResponse(endpoint=created)

        return await self.database.answer(request, work)

    async def GetEndpoint(self, request: gateway.GetEndpointRequest, context: Context) -> gateway.GetEndpointResponse:
        async with self.database.read() as session:
            return gateway.GetEndpointResponse(endpoint=await store.ENDPOINTS.get(session, request.name))

    async def ListEndpoints(
        self, request: gateway.ListEndpointsRequest, context: Context
    ) -> gateway.ListEndpointsResponse:
        async with self.database.read() as session:
            found, token = await store.ENDPOINTS.page(
                session, parent=request.parent, page_size=request.page_size, page_token=request.page_token
            )
        return gateway.ListEndpointsResponse(endpoints=found, next_page_token=token)

    async def UpdateEndpoint(
        self, request: gateway.UpdateEndpointRequest, context: Context
    ) -> gateway.UpdateEndpointResponse:
        async def work(unit: Unit) -> gateway.UpdateEndpointResponse:
            changed = await commands.update_endpoint(unit, request.endpoint, request.update_mask)
            return gateway.UpdateEndpointResponse(endpoint=changed)

        return await self.database.answer(request, work)


class DeploymentServicer(gateway.DeploymentServiceServicer):
    """What runs where."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def ListDeployments(
        self, request: gateway.ListDeploymentsRequest, context: Context
    ) -> gateway.ListDeploymentsResponse:
        async with self.database.read() as session:
            found, token = await store.DEPLOYMENTS.page(
                session,
                parent=request.parent,
                page_size=request.page_size,
                page_token=request.page_token,
                filter=request.filter,
                newest_first=True,
            )
        return gateway.ListDeploymentsResponse(deployments=found, next_page_token=token)


class CandidateRouteServicer(gateway.CandidateRouteServiceServicer):
    """Candidate routes by name."""

    def __init__(self, database: Database, approvals: Approvals, lease_s: float) -> None:
        self.database = database
        self.approvals = approvals
        self.lease_s = lease_s

    async def CreateCandidateRoute(
        self, request: gateway.CreateCandidateRouteRequest, context: Context
    ) -> gateway.CreateCandidateRouteResponse:
        await self.approvals.version(request.model_version)  # raises NotFound
        route = await self.database.transact(
            lambda unit: loading.create_candidate(unit, request.parent, request.model_version, self.lease_s)
        )
        return gateway.CreateCandidateRouteResponse(candidate_route=route)

    async def GetCandidateRoute(
        self, request: gateway.GetCandidateRouteRequest, context: Context
    ) -> gateway.GetCandidateRouteResponse:
        async with self.database.read() as session:
            route = await store.CANDIDATES.get(session, request.name)
        if domain.wants_renewal(route, self.database.clock(), self.lease_s):
            route = await self.database.transact(lambda unit: loading.renew_candidate(unit, request.name, self.lease_s))
        return gateway.GetCandidateRouteResponse(candidate_route=route)

    async def ReleaseCandidateRoute(
        self, request: gateway.ReleaseCandidateRouteRequest, context: Context
    ) -> gateway.ReleaseCandidateRouteResponse:
        route = await self.database.transact(lambda unit: loading.release_candidate(unit, request.name))
        return gateway.ReleaseCandidateRouteResponse(candidate_route=route)
