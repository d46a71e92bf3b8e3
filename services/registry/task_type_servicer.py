"""The rpcs on task types: each opens a unit or a session, calls one command, and wraps the answer."""

from __future__ import annotations

from typing import Any

from kit.rpc.call import current_call
from kit.rpc.names import id_of, parent_of
from kit.store import Database, Unit
from services.registry import task_types
from services.registry.catalog import Catalog
from services.registry.servicer import page_by_name
from sluice.registry import v1 as registry

Context = Any


class TaskTypeServicer(registry.TaskTypeServiceServicer):
    """Task types by name; built-in ones exist in every project."""

    def __init__(self, database: Database, catalog: Catalog) -> None:
        self.database = database
        self.catalog = catalog

    async def CreateTaskType(
        self, request: registry.CreateTaskTypeRequest, context: Context
    ) -> registry.CreateTaskTypeResponse:
        by = current_call().principal.name

        async def work(unit: Unit) -> registry.CreateTaskTypeResponse:
            made = await task_types.propose(unit, self.catalog, request, by)
            return registry.CreateTaskTypeResponse(task_type=made)

        return await self.database.answer(request, work)

    async def GetTaskType(self, request: registry.GetTaskTypeRequest, context: Context) -> registry.GetTaskTypeResponse:
        parent = parent_of(request.name)
        async with self.database.read() as session:
            found = await task_types.find_task_type(session, self.catalog, parent, id_of(request.name))
        return registry.GetTaskTypeResponse(task_type=found)

    async def ListTaskTypes(
        self, request: registry.ListTaskTypesRequest, context: Context
    ) -> registry.ListTaskTypesResponse:
        async with self.database.read() as session:
            own = await task_types.list_own(session, request.parent)
        found, token = page_by_name([*self.catalog.task_types.values(), *own], request)
        return registry.ListTaskTypesResponse(task_types=found, next_page_token=token)

    async def ApproveTaskType(
        self, request: registry.ApproveTaskTypeRequest, context: Context
    ) -> registry.ApproveTaskTypeResponse:
        by = current_call().principal.name

        async def work(unit: Unit) -> registry.ApproveTaskTypeResponse:
            found = await task_types.approve(unit, self.catalog, request, by)
            return registry.ApproveTaskTypeResponse(task_type=found)

        return await self.database.answer(request, work)

    async def RetireTaskType(
        self, request: registry.RetireTaskTypeRequest, context: Context
    ) -> registry.RetireTaskTypeResponse:
        async def work(unit: Unit) -> registry.RetireTaskTypeResponse:
            found = await task_types.retire(unit, self.catalog, request)
            return registry.RetireTaskTypeResponse(task_type=found)

        return await self.database.answer(request, work)
