"""The rpcs about erasures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from kit.rpc.call import current_call
from kit.rpc.names import project_of
from kit.store import Database, Unit, watch
from services.dataset import domain, store
from services.dataset.erasure import commands as erasure_commands
from services.dataset.erasure import domain as erasures
from services.dataset.erasure.erasing import PredicateStore
from services.dataset.governance import grants, lineage
from sluice import lifecycle
from sluice.dataset import v1 as dataset

Context = Any


class ErasureServicer(dataset.ErasureServiceServicer):
    """Erasures; what they are to forget lies in a blob until they are over."""

    def __init__(self, database: Database, predicates: PredicateStore) -> None:
        self.database = database
        self.predicates = predicates

    async def CreateErasure(
        self, request: dataset.CreateErasureRequest, context: Context
    ) -> dataset.CreateErasureResponse:
        async with self.database.read() as session:
            parent = await store.DATASETS.get(session, request.parent)
            mappings = [each.columns for each in await store.UPLOADS.find(session, parent=parent.name)]
        (grants.check_count if request.dry_run else grants.check_share)(parent)
        domain.check_there(parent)
        erasures.check_reason(request.reason, request.values)
        column = erasures.column_of(request.column, mappings)
        name = erasures.new_name(parent.name)
        called = {request.column, *erasures.names_of(column, mappings)}
        predicate = await self.predicates.put(name, column, called, request.values)

        async def work(unit: Unit) -> dataset.CreateErasureResponse:
            creator = current_call().principal.name
            created = await erasure_commands.create(unit, request, name, column, predicate, creator)
            return dataset.CreateErasureResponse(erasure=created)

        return await self.database.answer(request, work)

    async def GetErasure(self, request: dataset.GetErasureRequest, context: Context) -> dataset.GetErasureResponse:
        return dataset.GetErasureResponse(erasure=await self._get(request.name))

    async def ListErasures(
        self, request: dataset.ListErasuresRequest, context: Context
    ) -> dataset.ListErasuresResponse:
        async with self.database.read() as session:
            found, token = await erasures.page(session, request.parent, request.page_size, request.page_token)
            for each in found:
                await _complete(session, each)
        return dataset.ListErasuresResponse(erasures=found, next_page_token=token)

    async def WatchErasure(
        self, request: dataset.WatchErasureRequest, context: Context
    ) -> AsyncIterator[dataset.WatchErasureResponse]:
        async for erasure in watch(lambda: self._get(request.name), self.database.changed):
            yield dataset.WatchErasureResponse(erasure=erasure)
            if lifecycle.is_over(lifecycle.ERASURE, erasure.state):
                return

    async def _get(self, name: str) -> dataset.Erasure:
        async with self.database.read() as session:
            erasure = await erasures.ERASURES.get(session, name)
            await _complete(session, erasure)
            return erasure


async def _complete(session: AsyncSession, erasure: dataset.Erasure) -> None:
    """Adds the models that saw the rows, and leaves out datasets that the caller may not know of."""
    erasure.model_uses.extend(await lineage.touched(session, erasure))
    if erasure.also_in:
        hidden = await grants.hidden(session, current_call().principal, project_of(erasure.name))
        erasure.also_in[:] = [name for name in erasure.also_in if name not in hidden]
