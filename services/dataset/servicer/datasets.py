"""The rpcs about datasets."""

from __future__ import annotations

from typing import Any

from sqlmodel import col

from kit.rpc.call import current_call
from kit.store import Database, Unit
from services.dataset import commands, store
from services.dataset.erasure import deleting
from services.dataset.governance import grants
from services.dataset.labels import Labels
from services.dataset.store import DatasetRow
from sluice.dataset import v1 as dataset

Context = Any


class DatasetServicer(dataset.DatasetServiceServicer):
    """Datasets by name."""

    def __init__(self, database: Database, labels: Labels | None = None) -> None:
        self.database = database
        self.labels = labels or Labels()

    async def CreateDataset(
        self, request: dataset.CreateDatasetRequest, context: Context
    ) -> dataset.CreateDatasetResponse:
        asked = await self.labels.ask(request.parent, request.dataset.task_type)

        async def work(unit: Unit) -> dataset.CreateDatasetResponse:
            created = await commands.create_dataset(unit, request.parent, request.dataset, asked())
            return dataset.CreateDatasetResponse(dataset=created)

        return await self.database.answer(request, work)

    async def GetDataset(self, request: dataset.GetDatasetRequest, context: Context) -> dataset.GetDatasetResponse:
        async with self.database.read() as session:
            return dataset.GetDatasetResponse(dataset=await store.DATASETS.get(session, request.name))

    async def ListDatasets(
        self, request: dataset.ListDatasetsRequest, context: Context
    ) -> dataset.ListDatasetsResponse:
        async with self.database.read() as session:
            found, token = await store.DATASETS.page(
                session,
                parent=request.parent,
                page_size=request.page_size,
                page_token=request.page_token,
                filter=request.filter,
                where=[
                    *grants.visible(current_call().principal, request.parent),
                    col(DatasetRow.state) != store.DELETED,
                ],
            )
        return dataset.ListDatasetsResponse(datasets=found, next_page_token=token)

    async def UpdateDataset(
        self, request: dataset.UpdateDatasetRequest, context: Context
    ) -> dataset.UpdateDatasetResponse:
        named = request.dataset.task_type if "task_type" in request.update_mask.paths else ""
        asked = await self.labels.ask(request.dataset.name, named)

        async def work(unit: Unit) -> dataset.UpdateDatasetResponse:
            changed = await commands.update_dataset(unit, request.dataset, request.update_mask, asked)
            return dataset.UpdateDatasetResponse(dataset=changed)

        return await self.database.answer(request, work)

    async def DeleteDataset(
        self, request: dataset.DeleteDatasetRequest, context: Context
    ) -> dataset.DeleteDatasetResponse:
        async def work(unit: Unit) -> dataset.DeleteDatasetResponse:
            return await deleting.delete(unit, request, current_call().principal.name)

        return await self.database.answer(request, work)
