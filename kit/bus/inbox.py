"""Takes each event once: its effect and the record that it had one commit together; it knows no event by name."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from google.protobuf.message import Message
from sqlalchemy import delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import col, select

from kit.bus.cloud_events import decode_data
from kit.bus.inlets import InletHandler, OutsideEvent
from kit.bus.names import type_of
from kit.store import Database, InboxRow, Unit
from kit.telemetry import span, with_traceparent
from sluice.events import v1 as events

Handler = Callable[[Unit, events.Event, Any], Awaitable[None]]
Handlers = Mapping[type[Message], Handler]


def dead(consumer: str) -> str:
    """The name under which a consumer records what it buried."""
    return f"{consumer}.dead"


async def record(unit: Unit, consumer: str, event_id: str) -> bool:
    """Records that the consumer had this event; False when it had it before."""
    insert = postgresql.insert if unit.session.get_bind().dialect.name == "postgresql" else sqlite.insert
    row = insert(InboxRow).values(consumer=consumer, event_id=event_id, time=unit.now).on_conflict_do_nothing()
    result = await unit.session.exec(row)
    return int(result.rowcount) == 1


async def known(database: Database, consumer: str, ids: Collection[str]) -> set[str]:
    """Those of the events that the consumer had, or buried."""
    async with database.read() as session:
        query = select(InboxRow.event_id).where(
            col(InboxRow.consumer).in_([consumer, dead(consumer)]), col(InboxRow.event_id).in_(ids)
        )
        return set((await session.exec(query)).all())


async def forget(unit: Unit, before: datetime) -> int:
    """Forgets what was handled or buried before a time; returns how much that was."""
    return int((await unit.session.exec(delete(InboxRow).where(col(InboxRow.time) < before))).rowcount)


class Inbox:
    """The handlers of one service and what they had already."""

    def __init__(self, database: Database, service: str, handlers: Handlers) -> None:
        """``handlers`` maps event messages of other services (or its own) to what the service does about them."""
        self.database = database
        self.service = service
        self._handlers = {type_of(message): (message, handler) for message, handler in handlers.items()}

    def wants(self, event: events.Event) -> bool:
        """Whether there is a handler for events of this type."""
        return event.type in self._handlers

    async def handle(self, event: events.Event) -> bool:
        """Handles an event in one unit; False when it was handled before.

        Raises Undecodable, and whatever the handler raises; then nothing is recorded.
        """
        message_type, handler = self._handlers[event.type]
        message = decode_data(event, message_type)

        async def once(unit: Unit) -> bool:
            if not await record(unit, self.service, event.id):
                return False
            await handler(unit, event, message)
            return True

        with with_traceparent(event.traceparent), span(f"handle {event.type}", event_id=event.id):
            return await self.database.transact(once)

    async def handle_outside(self, some: Sequence[OutsideEvent], handler: InletHandler) -> int:
        """The same for events of outside systems, all in one unit; how many were not handled before."""

        async def once(unit: Unit) -> int:
            fresh = [event for event in some if await record(unit, self.service, event.id)]
            if fresh:
                await handler(unit, fresh)
            return len(fresh)

        with with_traceparent(some[0].traceparent), span("handle outside events", events=len(some)):
            return await self.database.transact(once)

    async def bury(self, event_id: str) -> None:
        """Records that an event lies in the dead letters, so that the reconciler does not bring it back."""

        async def note(unit: Unit) -> None:
            await record(unit, dead(self.service), event_id)

        await self.database.transact(note)
