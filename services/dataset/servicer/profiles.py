"""The rpcs about what is known of the rows of versions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from google.protobuf.json_format import Parse

from kit.rpc.names import parent_of
from services.dataset.analysis import Analyst
from sluice.dataset import v1 as dataset
from sluice.types import v1 as types

Context = Any


class DatasetProfileServicer(dataset.DatasetProfileServiceServicer):
    """Statistics, duplicates and differences: first how far it is, then what was found."""

    def __init__(self, analyst: Analyst) -> None:
        self.analyst = analyst

    async def ReadVersionStatistics(
        self, request: dataset.ReadVersionStatisticsRequest, context: Context
    ) -> AsyncIterator[dataset.ReadVersionStatisticsResponse]:
        rows = await self.analyst.rows_of(request.name)
        async with aclosing(self.analyst.statistics(rows)) as events:
            async for event in events:
                if isinstance(event, types.Progress):
                    yield dataset.ReadVersionStatisticsResponse(progress=event)
                else:
                    found = Parse(event, dataset.VersionStatistics())
                    yield dataset.ReadVersionStatisticsResponse(statistics=found)

    async def ReadVersionDuplicates(
        self, request: dataset.ReadVersionDuplicatesRequest, context: Context
    ) -> AsyncIterator[dataset.ReadVersionDuplicatesResponse]:
        rows = await self.analyst.rows_of(request.name)
        async with aclosing(self.analyst.duplicates(rows)) as events:
            async for event in events:
                if isinstance(event, types.Progress):
                    yield dataset.ReadVersionDuplicatesResponse(progress=event)
                else:
                    found = Parse(event, dataset.VersionDuplicates())
                    yield dataset.ReadVersionDuplicatesResponse(duplicates=found)

    async def ReadVersionDifference(
        self, request: dataset.ReadVersionDifferenceRequest, context: Context
    ) -> AsyncIterator[dataset.ReadVersionDifferenceResponse]:
        rows = await self.analyst.rows_of(request.name)
        base = await self.analyst.rows_of(f"{parent_of(request.name)}/versions/{request.base}")
        async with aclosing(self.analyst.difference(rows, base)) as events:
            async for event in events:
                if isinstance(event, types.Progress):
                    yield dataset.ReadVersionDifferenceResponse(progress=event)
                else:
                    found = dataset.VersionDifference(dataset_version=rows.version.name, base_version=base.version.name)
                    Parse(event, found)
                    found.kept = rows.version.row_count - found.added.rows
                    yield dataset.ReadVersionDifferenceResponse(difference=found)
