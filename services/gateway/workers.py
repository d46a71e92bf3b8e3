"""The workers that are connected and the tables they have put in force; it makes no table and reads no database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from kit.rpc.errors import Unavailable
from kit.store import Signal
from kit.telemetry import get_log
from services.gateway.figures import Figures
from services.gateway.tables import RouteTables
from sluice.gateway import v1 as gateway

log = get_log(__name__)


@dataclass(eq=False)
class Connected:
    """A worker and the number of the table it routes by."""

    name: str
    revision: int = 0
    gone: bool = False


class Workers:
    """The workers that are connected. ``changed`` is fired when one confirms, comes or goes."""

    def __init__(self) -> None:
        self.changed = Signal()
        self._connected: set[Connected] = set()

    def join(self, name: str) -> Connected:
        """A worker comes."""
        worker = Connected(name)
        self._connected.add(worker)
        return worker

    def confirm(self, worker: Connected, revision: int) -> None:
        """A worker says by which table it routes."""
        worker.revision = revision
        self.changed.fire()

    def leave(self, worker: Connected) -> None:
        """A worker goes; what it routes by is not known any more."""
        worker.gone = True
        self._connected.discard(worker)
        self.changed.fire()

    def behind(self, revision: int) -> list[str]:
        """The connected workers that route by an older table."""
        return sorted(worker.name for worker in self._connected if worker.revision < revision)

    async def follow(self, revision: int, timeout_s: float) -> list[str]:
        """Waits until every connected worker routes by this table or a newer one; returns those that do not in time."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            seen = self.changed.count
            behind = self.behind(revision)
            left = deadline - asyncio.get_running_loop().time()
            if not behind or left <= 0:
                break
            await self.changed.wait(seen, left)
        if behind:
            log.error("workers do not follow a route", revision=revision, workers=behind)
        return behind


class RouteServicer(gateway.RouteServiceServicer):
    """Tables to the workers, figures and confirmations from them."""

    def __init__(
        self, tables: RouteTables, workers: Workers, figures: Figures, leads: Callable[[], bool] = lambda: True
    ) -> None:
        """``leads`` says whether this process leads; only the leader knows where the engines are."""
        self.tables = tables
        self.workers = workers
        self.figures = figures
        self.leads = leads

    async def SyncRoutes(
        self, request_iterator: AsyncIterator[gateway.SyncRoutesRequest], context: Any
    ) -> AsyncIterator[gateway.SyncRoutesResponse]:
        if not self.leads():
            raise Unavailable("this replica of the gateway does not lead; connect to another", retry_after_s=1.0)
        first = await anext(aiter(request_iterator), None)
        if first is None:
            return
        worker = self.workers.join(first.worker)
        self._take(worker, first)
        listening = asyncio.create_task(self._listen(worker, request_iterator))
        try:
            sent = first.revision
            while not worker.gone and self.leads():
                seen = self.tables.changed.count
                table = self.tables.table
                # Equal: the worker has it, as after a restart of ours; until a route changes it keeps what it has.
                if table is not None and table.revision != sent:
                    sent = table.revision
                    yield gateway.SyncRoutesResponse(table=table)
                await self._wait(seen, listening)
        finally:
            self.workers.leave(worker)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _wait(self, seen: int, listening: asyncio.Task[None]) -> None:
        """Waits for another table, or for the worker to go."""
        table = asyncio.create_task(self.tables.changed.wait(seen, 1.0))
        try:
            await asyncio.wait([table, listening], return_when=asyncio.FIRST_COMPLETED)
        finally:
            table.cancel()

    async def _listen(self, worker: Connected, requests: AsyncIterator[gateway.SyncRoutesRequest]) -> None:
        try:
            async for message in requests:
                self._take(worker, message)
        finally:
            worker.gone = True

    def _take(self, worker: Connected, message: gateway.SyncRoutesRequest) -> None:
        self.figures.add(message.samples)
        self.workers.confirm(worker, message.revision)
