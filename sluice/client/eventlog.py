"""The event logs of the services, as they were and as they grow."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator
from datetime import datetime

from kit.rpc.errors import Invalid
from kit.settings import SERVICES
from sluice.client.connection import Connection
from sluice.events import v1 as events


class EventLog:
    """``client.events("trainer", "registry")``; without a name it is all five services."""

    def __init__(self, connection: Connection, services: tuple[str, ...]) -> None:
        for service in services:
            if service not in SERVICES:
                raise Invalid(f"there is no service `{service}`; there are {', '.join(SERVICES)}")
        self._connection = connection
        self._services = services or SERVICES
        self._events = events.EventServiceStub(connection.channel)

    async def list(
        self, since: datetime | None = None, subject: str = "", limit: int = 100
    ) -> builtins.list[events.Event]:
        """The first events at or after ``since``, at most ``limit`` of each service, in order of time."""
        found: builtins.list[events.Event] = []
        for service in self._services:
            request = events.ListEventsRequest(subject=subject)
            if since:
                request.since.FromDatetime(since)
            metadata = (("sluice-service", service),)
            pages = self._connection.pages(
                self._events.ListEvents, request, lambda page: page.events, limit=limit, metadata=metadata
            )
            found.extend([event async for event in pages])
        return sorted(found, key=lambda event: event.time.ToNanoseconds())

    async def tail(self, subject: str = "", after: dict[str, int] | None = None) -> AsyncIterator[events.Event]:
        """Events as they are committed, for ever; ``after`` has the last sequence seen of each service.

        Without ``after`` it begins with what comes next. ``subject`` keeps those whose subject is
        that resource or below it; its last parts are enough.
        """
        queue: asyncio.Queue[events.Event | BaseException] = asyncio.Queue(maxsize=1000)
        seen = dict(after or {})
        readers = [asyncio.create_task(self._read(service, seen, queue)) for service in self._services]
        try:
            while True:
                event = await queue.get()
                if isinstance(event, BaseException):
                    raise event
                if not subject or f"/{subject}/" in f"/{event.subject}/":
                    yield event
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    async def _read(
        self, service: str, seen: dict[str, int], queue: asyncio.Queue[events.Event | BaseException]
    ) -> None:
        """Puts what one service commits into the queue, and the fault that ends it."""

        async def stream() -> AsyncIterator[events.Event]:
            request = events.WatchEventsRequest(after_sequence=seen.get(service))
            metadata = (("sluice-service", service),)
            async for answer in self._connection.stream(self._events.WatchEvents, request, metadata=metadata):
                yield answer.event

        try:
            async for event in self._connection.follow(stream):
                seen[service] = event.sequence
                await queue.put(event)
        except Exception as fault:  # handed on to whoever reads the queue
            await queue.put(fault)
