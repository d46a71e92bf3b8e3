"""The rpcs on rollouts. What the registry must say is asked before a unit opens, so that nobody waits for it with the
database locked; what it refuses is raised inside, so that a repeated request gets its first answer all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from kit.rpc.call import current_call
from kit.rpc.errors import Unavailable
from kit.rpc.names import uuid7
from kit.store import Database, Unit, watch
from services.gateway import commands, domain, store
from services.gateway.approvals import Approvals
from services.gateway.workers import Workers
from sluice import lifecycle
from sluice.gateway import v1 as gateway

Context = Any


class RolloutServicer(gateway.RolloutServiceServicer):
    """Rollouts by name."""

    def __init__(
        self,
        database: Database,
        approvals: Approvals,
        workers: Workers,
        confirm_s: float,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        """A rollback waits ``confirm_s`` for the workers; they are connected to the process that ``leads``."""
        self.database = database
        self.approvals = approvals
        self.workers = workers
        self.confirm_s = confirm_s
        self.leads = leads

    async def CreateRollout(
        self, request: gateway.CreateRolloutRequest, context: Context
    ) -> gateway.CreateRolloutResponse:
        approved = await _asked(self.approvals.require(request.model_version))
        creator = current_call().principal.name

        async def work(unit: Unit) -> gateway.CreateRolloutResponse:
            approved.result()
            name = f"{request.parent}/rollouts/{uuid7()}"
            rollout = await commands.create_rollout(unit, name, request.model_version, creator)
            return gateway.CreateRolloutResponse(rollout=rollout)

        return await self.database.answer(request, work)

    async def GetRollout(self, request: gateway.GetRolloutRequest, context: Context) -> gateway.GetRolloutResponse:
        return gateway.GetRolloutResponse(rollout=await self._get(request.name))

    async def ListRollouts(
        self, request: gateway.ListRolloutsRequest, context: Context
    ) -> gateway.ListRolloutsResponse:
        async with self.database.read() as session:
            found, token = await store.ROLLOUTS.page(
                session,
                parent=request.parent,
                page_size=request.page_size,
                page_token=request.page_token,
                filter=request.filter,
                newest_first=True,
            )
        return gateway.ListRolloutsResponse(rollouts=found, next_page_token=token)

    async def WatchRollout(
        self, request: gateway.WatchRolloutRequest, context: Context
    ) -> AsyncIterator[gateway.WatchRolloutResponse]:
        async for rollout in watch(lambda: self._get(request.name), self.database.changed):
            yield gateway.WatchRolloutResponse(rollout=rollout)
            # PROMOTED may still be rolled back, but by itself it goes nowhere.
            if rollout.state == domain.PROMOTED or lifecycle.is_over(lifecycle.ROLLOUT, rollout.state):
                return

    async def PromoteRollout(
        self, request: gateway.PromoteRolloutRequest, context: Context
    ) -> gateway.PromoteRolloutResponse:
        version = (await self._get(request.name)).model_version
        approved = await _asked(self.approvals.require(version))
        by = current_call().principal.name

        async def work(unit: Unit) -> gateway.PromoteRolloutResponse:
            approved.result()
            return gateway.PromoteRolloutResponse(rollout=await commands.promote_rollout(unit, request, by))

        return await self.database.answer(request, work)

    async def RollbackRollout(
        self, request: gateway.RollbackRolloutRequest, context: Context
    ) -> gateway.RollbackRolloutResponse:
        self._require_lead()
        approved = await _asked(self._may_return(request.name))
        by = current_call().principal.name

        async def work(unit: Unit) -> gateway.RollbackRolloutResponse:
            approved.result()
            return gateway.RollbackRolloutResponse(rollout=await commands.rollback_rollout(unit, request, by))

        response = await self.database.answer(request, work)
        await self._until_followed(response.rollout)
        return response

    async def _may_return(self, name: str) -> None:
        """Raises StateConflict when a promoted version gives way to one that may serve no longer."""
        rollout = await self._get(name)
        if rollout.state == domain.PROMOTED and rollout.incumbent:
            await self.approvals.require(rollout.incumbent)

    async def _until_followed(self, rollout: gateway.Rollout) -> None:
        """Returns when no connected worker admits a request by a route from before."""
        async with self.database.read() as session:
            endpoint = await store.ENDPOINTS.get(session, domain.endpoint_of(rollout.name))
        await self.workers.follow(endpoint.route_revision, self.confirm_s)

    def _require_lead(self) -> None:
        if not self.leads():
            raise Unavailable("this replica of the gateway does not lead; ask another", retry_after_s=1.0)

    async def _get(self, name: str) -> gateway.Rollout:
        async with self.database.read() as session:
            return await store.ROLLOUTS.get(session, name)


async def _asked(question: Awaitable[Any]) -> asyncio.Future[Any]:
    """The answer of a peer, or its refusal, for later."""
    asked = asyncio.ensure_future(question)
    await asyncio.wait([asked])
    asked.exception()  # looked at here, as a repeated request does not look
    return asked
