"""Serves the outbox as the event log of the contract, each caller seeing the projects it has a role in."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC
from typing import Any

from sqlalchemy import ColumnElement, func, or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.auth.principal import ALL_PROJECTS, Principal
from kit.bus.outbox import to_event
from kit.rpc import paging
from kit.rpc.call import current_call
from kit.store import Database, OutboxRow
from sluice.events import v1 as events
from sluice.types import v1 as types

BATCH = 100


class EventServicer(events.EventServiceServicer):
    """ListEvents and WatchEvents over one service's outbox."""

    def __init__(self, database: Database, *, poll_s: float = 1.0) -> None:
        """``poll_s`` bounds the delay of events committed by another process."""
        self.database = database
        self.poll_s = poll_s

    async def ListEvents(self, request: events.ListEventsRequest, context: Any) -> events.ListEventsResponse:
        """One page, oldest first. Raises Invalid (INVALID_PAGE_TOKEN)."""
        query = ("ListEvents", request.since.ToJsonString(), request.subject)
        conditions = visible(current_call().principal)
        if request.HasField("since"):
            conditions.append(col(OutboxRow.time) >= request.since.ToDatetime(UTC))
        if request.subject:
            conditions.append(col(OutboxRow.subject) == request.subject)
        after = paging.decode(request.page_token, *query)
        size = paging.page_size(request.page_size, default=100)
        async with self.database.read() as session:
            rows = await _rows(session, int(after[0]) if after else 0, size + 1, conditions)
        token = paging.encode([rows[size - 1].sequence or 0], *query) if len(rows) > size else ""
        return events.ListEventsResponse(events=self._events(rows[:size]), next_page_token=token)

    async def WatchEvents(
        self, request: events.WatchEventsRequest, context: Any
    ) -> AsyncIterator[events.WatchEventsResponse]:
        """Events as they are committed, until the caller goes."""
        conditions = visible(current_call().principal)
        seen = self.database.changed.count
        last = request.after_sequence
        if not request.HasField("after_sequence"):
            async with self.database.read() as session:
                last = (await session.exec(select(func.max(OutboxRow.sequence)))).one() or 0
        while True:
            async with self.database.read() as session:
                rows = await _rows(session, last, BATCH, conditions)
            for event in self._events(rows):
                yield events.WatchEventsResponse(event=event)
                last = event.sequence
            if len(rows) < BATCH:
                seen = await self.database.changed.wait(seen, self.poll_s)

    def _events(self, rows: Sequence[OutboxRow]) -> list[events.Event]:
        return [to_event(row, self.database.service) for row in rows]


async def _rows(
    session: AsyncSession, after: int, most: int, conditions: Sequence[ColumnElement[bool]]
) -> Sequence[OutboxRow]:
    query = select(OutboxRow).where(col(OutboxRow.sequence) > after, *conditions)
    return (await session.exec(query.order_by(col(OutboxRow.sequence)).limit(most))).all()


def visible(principal: Principal) -> list[ColumnElement[bool]]:
    """What a principal may see: services everything, others their projects; inference alone shows nothing."""
    readers = {project for project, role in principal.bindings if role != types.ROLE_INFERENCE}
    if principal.service or ALL_PROJECTS in readers:
        return []
    subject = col(OutboxRow.subject)
    inside = [subject == project for project in readers]
    inside += [subject.startswith(f"{project}/", autoescape=True) for project in readers]
    return [or_(*inside)] if inside else [subject.is_(None)]
