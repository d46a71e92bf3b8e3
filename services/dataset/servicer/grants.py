"""The rpcs about rights on datasets."""

from __future__ import annotations

from typing import Any

from kit.rpc.call import current_call
from kit.store import Database, Unit
from services.dataset.governance import grants
from sluice.dataset import v1 as dataset

Context = Any


class GrantServicer(dataset.GrantServiceServicer):
    """Grants."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def CreateGrant(self, request: dataset.CreateGrantRequest, context: Context) -> dataset.CreateGrantResponse:
        async def work(unit: Unit) -> dataset.CreateGrantResponse:
            creator = current_call().principal.name
            return dataset.CreateGrantResponse(grant=await grants.give(unit, request.parent, request.grant, creator))

        return await self.database.answer(request, work)

    async def DeleteGrant(self, request: dataset.DeleteGrantRequest, context: Context) -> dataset.DeleteGrantResponse:
        async def work(unit: Unit) -> dataset.DeleteGrantResponse:
            await grants.take(unit, request.name, request.etag)
            return dataset.DeleteGrantResponse()

        return await self.database.answer(request, work)

    async def ListGrants(self, request: dataset.ListGrantsRequest, context: Context) -> dataset.ListGrantsResponse:
        async with self.database.read() as session:
            found, token = await grants.GRANTS.page(
                session, parent=request.parent, page_size=request.page_size, page_token=request.page_token
            )
        return dataset.ListGrantsResponse(grants=found, next_page_token=token)
