"""The rpcs about feeds."""

from __future__ import annotations

import asyncio
from typing import Any

from kit.blobs import BlobStore
from kit.rpc.call import current_call
from kit.rpc.names import parent_of
from kit.store import Database, Unit
from services.dataset import store
from services.dataset.feeds import commands as feeds_commands
from services.dataset.feeds import domain as feeds
from services.dataset.feeds.store import FEEDS
from services.dataset.feeds.taking import Taking
from services.dataset.labels import Labels
from sluice.dataset import v1 as dataset

Context = Any
#: Rows that are looked at where they come: another thread would cost more.
FEW_BYTES = 64 << 10


class FeedServicer(dataset.FeedServiceServicer):
    """Feeds and the rows that come by them."""

    def __init__(self, database: Database, blobs: BlobStore, labels: Labels | None = None) -> None:
        self.database = database
        self.labels = labels or Labels()
        self.taking = Taking(database, blobs)

    async def CreateFeed(self, request: dataset.CreateFeedRequest, context: Context) -> dataset.CreateFeedResponse:
        asked = await self.labels.ask_of(await self._check_demands(request.parent, request.feed))

        async def work(unit: Unit) -> dataset.CreateFeedResponse:
            asked()
            creator = current_call().principal.name
            created = await feeds_commands.create_feed(unit, request.parent, request.feed, creator)
            return dataset.CreateFeedResponse(feed=created)

        return await self.database.answer(request, work)

    async def GetFeed(self, request: dataset.GetFeedRequest, context: Context) -> dataset.GetFeedResponse:
        async with self.database.read() as session:
            return dataset.GetFeedResponse(feed=await FEEDS.get(session, request.name))

    async def ListFeeds(self, request: dataset.ListFeedsRequest, context: Context) -> dataset.ListFeedsResponse:
        async with self.database.read() as session:
            found, token = await FEEDS.page(
                session, parent=request.parent, page_size=request.page_size, page_token=request.page_token
            )
        return dataset.ListFeedsResponse(feeds=found, next_page_token=token)

    async def UpdateFeed(self, request: dataset.UpdateFeedRequest, context: Context) -> dataset.UpdateFeedResponse:
        paths = request.update_mask.paths
        if not paths or "demands" in paths:
            await self._check_demands(parent_of(request.feed.name), request.feed)

        async def work(unit: Unit) -> dataset.UpdateFeedResponse:
            changed = await feeds_commands.update_feed(unit, request.feed, request.update_mask)
            return dataset.UpdateFeedResponse(feed=changed)

        return await self.database.answer(request, work)

    async def AppendRows(self, request: dataset.AppendRowsRequest, context: Context) -> dataset.AppendRowsResponse:
        few = len(request.rows) <= FEW_BYTES
        lines = feeds.lines_of(request.rows) if few else await asyncio.to_thread(feeds.lines_of, request.rows)
        return await self.taking.append(request, lines)

    async def DeleteFeed(self, request: dataset.DeleteFeedRequest, context: Context) -> dataset.DeleteFeedResponse:
        async def work(unit: Unit) -> dataset.DeleteFeedResponse:
            await feeds_commands.delete_feed(unit, request.name, request.etag, request.force)
            return dataset.DeleteFeedResponse()

        return await self.database.answer(request, work)

    async def FlushFeed(self, request: dataset.FlushFeedRequest, context: Context) -> dataset.FlushFeedResponse:
        async def work(unit: Unit) -> dataset.FlushFeedResponse:
            return dataset.FlushFeedResponse(feed=await feeds_commands.flush_feed(unit, request.name))

        return await self.database.answer(request, work)

    async def _check_demands(self, parent: str, feed: dataset.Feed) -> dataset.Dataset:
        """Gives the dataset. Before a unit is opened: while one is open nobody else writes, and it may take a while."""
        async with self.database.read() as session:
            of = await store.DATASETS.get(session, parent)
        await asyncio.to_thread(feeds.check_demands, feed, of)
        return of
