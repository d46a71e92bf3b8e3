"""The event logs of the services, as they were and as they grow, and the events they could not handle."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator
from datetime import datetime

from kit.rpc.errors import Invalid
from kit.settings import SERVICES
from sluice.client import names
from sluice.client.connection import Connection
from sluice.events import v1 as events

#: Dead letters that one call sends again.
REPLAYED = 100


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

    async def dead_letters(self) -> builtins.list[events.DeadLetter]:
        """The events that these services could not handle and that wait for a repair, in order of time."""
        found: builtins.list[events.DeadLetter] = []
        for service in self._services:
            request, metadata = events.ListDeadLettersRequest(), (("sluice-service", service),)
            pages = self._connection.pages(
                self._events.ListDeadLetters, request, lambda page: page.dead_letters, metadata=metadata
            )
            found.extend([letter async for letter in pages])
        return sorted(found, key=lambda letter: letter.bury_time.ToNanoseconds())

    async def replay(self, *ids: str) -> builtins.list[events.DeadLetter]:
        """Has dead letters handled again once their cause is repaired; returns those that were sent.

        ``ids`` are ids of events or the beginnings of them; without any, all that can be sent are. One that fails
        again becomes a dead letter again. Raises NotFound, and StateConflict for one that was too large to be kept.
        """
        there = await self.dead_letters()
        known = sorted({letter.id for letter in there})
        wanted = {names.only([id for id in known if id.startswith(each)], each, "dead letter") for each in ids}
        chosen = [letter for letter in there if (letter.id in wanted if ids else letter.replayable)]
        for service in self._services:
            mine = list(dict.fromkeys(letter.id for letter in chosen if letter.service == service))
            for start in range(0, len(mine), REPLAYED):
                request = events.ReplayDeadLettersRequest(ids=mine[start : start + REPLAYED])
                metadata = (("sluice-service", service),)
                await self._connection.call(self._events.ReplayDeadLetters, request, metadata=metadata)
        return chosen

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
