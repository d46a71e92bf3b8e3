"""Finds in the logs of other services what the broker did not bring; level-triggered, it knows no broker."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol

import grpc

from kit.bus.inbox import Handlers, Inbox, forget, known
from kit.bus.names import sources as sources_of
from kit.rpc.errors import Fault, Unavailable
from kit.store import BookmarkRow, Database, Unit
from kit.telemetry import count, get_log
from sluice.events import v1 as events

log = get_log("sluice.bus")
LOOK_BACK = timedelta(hours=1)  # also what the clocks of two services may differ
OVERLAP = timedelta(minutes=10)
ATTEMPTS = 5
#: The broker keeps an event for 7 days, a dead letter for 30, and one that was sent again for 30 more.
INBOX_KEPT = timedelta(days=60)
FORGET_EVERY_S = 86_400.0


class EventLog(Protocol):
    """What is called of another service: its EventServiceStub."""

    @property
    def ListEvents(self) -> "grpc.aio.UnaryUnaryMultiCallable[events.ListEventsRequest, events.ListEventsResponse]":
        """Pages of the events since a time."""
        ...


class Reconciler:
    """Reads each source's log from its first event, later from a little before the last one seen."""

    def __init__(
        self,
        database: Database,
        service: str,
        sources: Mapping[str, EventLog],
        handlers: Handlers,
        *,
        every_s: float = 60.0,
        grace_s: float = 5.0,
    ) -> None:
        """Events younger than ``grace_s`` are left to the broker, which is faster."""
        self.database = database
        self.service = service
        wanted = sources_of(handlers)
        self.sources = {source: stub for source, stub in sources.items() if source in wanted}
        self.inbox = Inbox(database, service, handlers)
        self.every_s = every_s
        self.grace = timedelta(seconds=grace_s)
        self._woken = asyncio.Event()
        self._failures: Counter[str] = Counter()

    def wake(self) -> None:
        """Looks at once; give it to ``Bus.on_connect``."""
        self._woken.set()

    async def run(self) -> None:
        """Looks now, every ``every_s``, and when woken, until cancelled."""
        loop = asyncio.get_running_loop()
        forget_at = loop.time()
        while True:
            self._woken.clear()
            for source in self.sources:
                try:
                    await self.reconcile(source)
                except (grpc.RpcError, Fault) as error:
                    cause = error.code().name if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__
                    log.info("cannot read the event log", service=self.service, source=source, cause=cause)
            if loop.time() >= forget_at:
                with contextlib.suppress(Unavailable):
                    await self.forget()
                    forget_at = loop.time() + FORGET_EVERY_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self.every_s)

    async def reconcile(self, source: str) -> int:
        """Handles the events of one source that were missed; returns how many.

        Raises grpc.RpcError when the source does not answer, and Fault when the database does not.
        """
        key = f"reconciled.{source}"
        newest, found, settled = await self._newest(key), 0, True
        async for page in self._pages(source, newest):
            had = await known(self.database, self.service, [event.id for event in page])
            for event in page:
                newest = max(newest or event.time.ToDatetime(UTC), event.time.ToDatetime(UTC))
                if not self.inbox.wants(event) or event.id in had or self._given_up(event):
                    continue
                if timedelta(0) <= self.database.clock() - event.time.ToDatetime(UTC) < self.grace:
                    settled = False
                    continue
                handled = await self._handle(event)
                settled, found = settled and handled, found + handled
        if settled and newest is not None:
            await self._remember(key, newest)
        if found:
            count("sluice_events_reconciled_total", found, service=self.service, source=source)
            log.warning("handled events that the broker lost", service=self.service, source=source, events=found)
        return found

    async def forget(self) -> int:
        """Drops from the inbox what can come again on no way; returns how much that was. Raises Unavailable.

        The broker and the dead letters bring nothing back that was handled 60 days ago, and the next look begins a
        little before the newest settled event of each source; the day is for the clocks of two services.
        """
        settled = [await self._newest(f"reconciled.{source}") for source in self.sources]
        times = [each - timedelta(days=1) for each in settled if each is not None]
        if len(times) < len(settled):
            return 0
        before = min([self.database.clock() - INBOX_KEPT, *times])
        return await self.database.transact(lambda unit: forget(unit, before))

    async def _handle(self, event: events.Event) -> bool:
        try:
            await self.inbox.handle(event)
            self._failures.pop(event.id, None)
            return True
        except Exception as error:
            self._failures[event.id] += 1
            last = self._given_up(event)
            what = "gave up on an event" if last else "a handler failed; again later"
            log.error(what, service=self.service, event_id=event.id, cause=type(error).__name__)
            return False

    def _given_up(self, event: events.Event) -> bool:
        return self._failures[event.id] >= ATTEMPTS

    async def _pages(self, source: str, newest: datetime | None) -> AsyncIterator[list[events.Event]]:
        request = events.ListEventsRequest(page_size=500)
        if newest is not None:
            request.since.FromDatetime(min(self.database.clock() - LOOK_BACK, newest - OVERLAP))
        while True:
            response = await self.sources[source].ListEvents(request, timeout=10.0)
            yield list(response.events)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def _newest(self, key: str) -> datetime | None:
        """The time of the newest event that is settled, by the clock of its service."""
        async with self.database.read() as session:
            bookmark = await session.get(BookmarkRow, key)
            return datetime.fromisoformat(bookmark.value) if bookmark else None

    async def _remember(self, key: str, newest: datetime) -> None:
        if await self._newest(key) == newest:
            return

        async def note(unit: Unit) -> None:
            await unit.session.merge(BookmarkRow(key=key, value=newest.isoformat()))

        await self.database.transact(note)
