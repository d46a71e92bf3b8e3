"""Serves the outbox as the event log of the contract, each caller its projects, and the service's dead letters."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from datetime import UTC
from typing import Any

from sqlalchemy import ColumnElement, func, or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.auth.principal import ALL_PROJECTS, Principal
from kit.bus.connection import Bus
from kit.bus.dead_letters import DeadLetter, check_kept, letters, replay
from kit.bus.outbox import to_event
from kit.rpc import paging
from kit.rpc.call import current_call
from kit.rpc.errors import NotFound
from kit.store import Database, OutboxRow, Unit
from sluice.events import v1 as events
from sluice.types import v1 as types

BATCH = 100
#: Of events of the projects of a principal those that it may see, where not all members of a project may see all.
Sift = Callable[[AsyncSession, Principal, Sequence[OutboxRow]], Awaitable[Sequence[OutboxRow]]]


class EventServicer(events.EventServiceServicer):
    """The log is one service's outbox; its dead letters lie on the bus."""

    def __init__(self, database: Database, bus: Bus, *, sift: Sift | None = None, poll_s: float = 1.0) -> None:
        """``poll_s`` bounds the delay of events committed by another process."""
        self.database = database
        self.bus = bus
        self.poll_s = poll_s
        self.sift = sift

    async def ListEvents(self, request: events.ListEventsRequest, context: Any) -> events.ListEventsResponse:
        """One page, oldest first. Raises Invalid (INVALID_PAGE_TOKEN)."""
        query = ("ListEvents", request.since.ToJsonString(), request.subject)
        conditions = visible(current_call().principal)
        if request.HasField("since"):
            conditions.append(col(OutboxRow.time) >= request.since.ToDatetime(UTC))
        if request.subject:
            conditions.append(col(OutboxRow.subject) == request.subject)
        after = paging.decode(request.page_token, *query, of=(int,))
        size = paging.page_size(request.page_size, default=100)
        async with self.database.read() as session:
            rows = await _rows(session, int(after[0]) if after else 0, size + 1, conditions)
            told = await self._told(session, rows[:size])
        token = paging.encode([rows[size - 1].sequence or 0], *query) if len(rows) > size else ""
        return events.ListEventsResponse(events=told, next_page_token=token)

    async def WatchEvents(
        self, request: events.WatchEventsRequest, context: Any
    ) -> AsyncIterator[events.WatchEventsResponse]:
        """Events as they are committed, until the caller goes."""
        conditions = visible(current_call().principal)
        seen = self.database.changed.count
        last = request.after_sequence
        if request.HasField("since") and not request.HasField("after_sequence"):
            conditions.append(col(OutboxRow.time) >= request.since.ToDatetime(UTC))
        elif not request.HasField("after_sequence"):
            async with self.database.read() as session:
                last = (await session.exec(select(func.max(OutboxRow.sequence)))).one() or 0
        while True:
            async with self.database.read() as session:
                rows = await _rows(session, last, BATCH, conditions)
                told = await self._told(session, rows)
            for event in told:
                yield events.WatchEventsResponse(event=event)
            last = rows[-1].sequence or 0 if rows else last
            if len(rows) < BATCH:
                seen = await self.database.changed.wait(seen, self.poll_s)

    async def ListDeadLetters(
        self, request: events.ListDeadLettersRequest, context: Any
    ) -> events.ListDeadLettersResponse:
        """One page, oldest first. Raises Invalid (INVALID_PAGE_TOKEN), and Unavailable while the bus is down."""
        after = paging.decode(request.page_token, "ListDeadLetters", of=(int,))
        size = paging.page_size(request.page_size, default=100)
        found = await letters(self.bus)
        rest = [letter for letter in found if after is None or letter.sequence > int(after[0])]
        token = paging.encode([rest[size - 1].sequence], "ListDeadLetters") if len(rest) > size else ""
        page = [_dead_letter(letter, self.bus.service) for letter in rest[:size]]
        return events.ListDeadLettersResponse(dead_letters=page, next_page_token=token, total_size=len(found))

    async def ReplayDeadLetters(
        self, request: events.ReplayDeadLettersRequest, context: Any
    ) -> events.ReplayDeadLettersResponse:
        """Keeps the answer first and then sends, so that a repeat sends what the first call could not.

        Raises NotFound, StateConflict, and Unavailable while the bus is down.
        """
        there = await letters(self.bus)

        async def choose(unit: Unit) -> events.ReplayDeadLettersResponse:
            return events.ReplayDeadLettersResponse(ids=_chosen(there, request.ids, self.bus.service))

        answer = await self.database.answer(request, choose)
        await replay(self.bus, answer.ids)
        return answer

    async def _told(self, session: AsyncSession, rows: Sequence[OutboxRow]) -> list[events.Event]:
        if self.sift is not None:
            rows = await self.sift(session, current_call().principal, rows)
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


def _chosen(there: Sequence[DeadLetter], ids: Collection[str], service: str) -> list[str]:
    """The ids in the order of their letters, each once. Raises NotFound and StateConflict."""
    chosen = [letter for letter in there if letter.id in ids]
    for unknown in set(ids) - {letter.id for letter in chosen}:
        raise NotFound(
            f"{service} has no dead letter `{unknown}`; `sluice events dead` lists those there are",
            resource=("DeadLetter", unknown),
        )
    for letter in chosen:
        check_kept(letter)
    return list(dict.fromkeys(letter.id for letter in chosen))


def _dead_letter(letter: DeadLetter, service: str) -> events.DeadLetter:
    message = events.DeadLetter(
        id=letter.id,
        service=service,
        type=letter.subject,
        reason=letter.reason,
        size_bytes=letter.size_bytes,
        replayable=letter.kept,
    )
    message.bury_time.FromDatetime(letter.bury_time)
    return message
