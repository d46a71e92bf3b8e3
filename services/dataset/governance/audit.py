"""The append-only record of who read rows and who was refused: a line at the begin, one at the end, never content."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Integer, String, and_, literal, null, or_, select, union_all
from sqlalchemy import cast as sql_cast
from sqlmodel import Field, SQLModel, col
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.rpc import paging
from kit.rpc.call import Call
from kit.rpc.names import uuid7
from kit.store import Database, OutboxRow, Unit, UtcTime, event_type
from sluice.dataset import v1 as dataset

#: Rows of a kind that nobody counts.
UNCOUNTED = -1
#: What the rpcs are called that change nothing.
READS = ("Get", "List", "Watch", "Read")


class ReadRow(SQLModel, table=True):
    """A read that began, or anything that was refused."""

    __tablename__ = "dataset_read"
    id: str = Field(primary_key=True)
    dataset: str = Field(index=True)
    resource: str = Field(index=True)
    principal: str
    action: str
    traceparent: str = ""
    time: datetime = Field(sa_type=UtcTime, index=True)


class ReadEndRow(SQLModel, table=True):
    """How a read ended and how far it came; a read without one is under way, or was when the service died."""

    __tablename__ = "dataset_read_end"
    id: str = Field(primary_key=True)
    outcome: int
    rows: int = Field(sa_type=BigInteger)
    size_bytes: int = Field(sa_type=BigInteger)
    time: datetime = Field(sa_type=UtcTime)


@dataclass
class Reading:
    """A read under way, and what has been sent of it; nothing is, before that it began is ``written``."""

    row: ReadRow
    written: asyncio.Task[None]
    rows: int = UNCOUNTED
    size_bytes: int = 0

    def count(self, rows: int) -> None:
        """Counts rows that go out."""
        self.rows = max(self.rows, 0) + rows


_PRESENT: ContextVar[Reading | None] = ContextVar("dataset_reading", default=None)


def count_rows(rows: int) -> None:
    """Counts rows that go out in the present read, where there is one and its messages do not tell."""
    if (reading := _PRESENT.get()) is not None:
        reading.count(rows)


class Audit:
    """Writes the record. What it has begun to write is written, whoever goes away meanwhile."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writing: set[asyncio.Task[None]] = set()

    def begin(self, call: Call, of: str, resource: str) -> Reading:
        """Starts to put down that a read begins, while its first rows are looked for."""
        action = call.method.rpartition("/")[2]
        row = ReadRow(
            id=uuid7(),
            dataset=of,
            resource=resource,
            principal=call.principal.name,
            action=action,
            traceparent=call.traceparent,
            time=self._database.clock(),
        )

        async def note(unit: Unit) -> None:
            unit.session.add(ReadRow(**row.model_dump()))

        reading = Reading(row, self._write(self._database.transact(note)))
        _PRESENT.set(reading)
        return reading

    async def end(self, reading: Reading, outcome: dataset.AuditOutcome) -> None:
        """Puts down how it ended; a caller who is cancelled meanwhile does not stop that."""
        await asyncio.shield(self._write(self._end(reading, outcome)))

    async def refuse(self, call: Call, of: str, resource: str) -> None:
        """Puts down that somebody was refused what they asked for."""
        await self.end(self.begin(call, of, resource), dataset.AUDIT_OUTCOME_REFUSED)

    async def drain(self) -> None:
        """Returns when all is written that was begun."""
        await asyncio.gather(*self._writing, return_exceptions=True)

    def _write(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return task

    async def _end(self, reading: Reading, outcome: dataset.AuditOutcome) -> None:
        await reading.written
        entry = entry_of(reading.row)
        entry.outcome, entry.rows, entry.size_bytes = outcome, reading.rows, reading.size_bytes

        async def note(unit: Unit) -> None:
            entry.end_time.FromDatetime(unit.now)
            unit.session.add(
                ReadEndRow(id=entry.id, outcome=outcome, rows=entry.rows, size_bytes=entry.size_bytes, time=unit.now)
            )
            unit.emit(dataset.ReadEnded(audit_entry=entry), entry.resource)

        await self._database.transact(note)


def entry_of(row: ReadRow) -> dataset.AuditEntry:
    """An entry that is still open."""
    entry = dataset.AuditEntry(
        id=row.id,
        principal=row.principal,
        action=row.action,
        resource=row.resource,
        outcome=dataset.AUDIT_OUTCOME_OPEN,
        traceparent=row.traceparent,
    )
    entry.time.FromDatetime(row.time)
    return entry


async def read_since(session: AsyncSession, of: str, since: datetime) -> set[str]:
    """The resources of a dataset that somebody began to read after a time."""
    query: Any = select(col(ReadRow.resource)).where(col(ReadRow.dataset) == of, col(ReadRow.time) > since)
    return {row.resource for row in (await session.exec(query.distinct())).all()}


async def page(
    session: AsyncSession, of: str, size: int, token: str, reads_only: bool
) -> tuple[list[dataset.AuditEntry], str]:
    """One page of reads and changes, newest first, and the token of the next. Raises Invalid (INVALID_PAGE_TOKEN)."""
    query = ("audit", of, str(reads_only))
    after = paging.decode(token, *query, of=(str, str))
    only = or_(*(col(ReadRow.action).startswith(each) for each in READS))
    both: Any = _reads(of).where(only) if reads_only else union_all(_reads(of), _changes(of))
    entries: Any = both.subquery()
    wanted: Any = select(entries).order_by(entries.c.time.desc(), entries.c.id.desc())
    if after is not None:
        try:
            time = datetime.fromisoformat(str(after[0])).astimezone(UTC)
        except (ValueError, OverflowError):
            raise paging.wrong_token() from None
        before = literal(time, UtcTime)
        wanted = wanted.where(or_(entries.c.time < before, and_(entries.c.time == before, entries.c.id < after[1])))
    limit = paging.page_size(size)
    rows = (await session.exec(wanted.limit(limit + 1))).all()
    following = ""
    if len(rows) > limit:
        following = paging.encode([rows[limit - 1].time.isoformat(), rows[limit - 1].id], *query)
    return [_entry(row) for row in rows[:limit]], following


def _reads(of: str) -> Any:
    begun, ended = col(ReadRow.id), col(ReadEndRow.id)
    return (
        select(
            begun.label("id"),
            col(ReadRow.principal).label("principal"),
            col(ReadRow.action).label("action"),
            col(ReadRow.resource).label("resource"),
            col(ReadRow.time).label("time"),
            col(ReadEndRow.time).label("end_time"),
            col(ReadEndRow.outcome).label("outcome"),
            col(ReadEndRow.rows).label("rows"),
            col(ReadEndRow.size_bytes).label("size_bytes"),
            col(ReadRow.traceparent).label("traceparent"),
        )
        .select_from(ReadRow)
        .outerjoin(ReadEndRow, begun == ended)
        .where(col(ReadRow.dataset) == of)
    )


def _changes(of: str) -> Any:
    """What the event log tells of a dataset and of what is below it, but for reads."""
    subject = col(OutboxRow.subject)
    return select(
        col(OutboxRow.id),
        col(OutboxRow.principal),
        col(OutboxRow.type),
        subject,
        col(OutboxRow.time),
        col(OutboxRow.time),
        literal(int(dataset.AUDIT_OUTCOME_COMPLETE), Integer),
        sql_cast(null(), BigInteger),
        sql_cast(null(), BigInteger),
        sql_cast(col(OutboxRow.traceparent), String),
    ).where(
        or_(subject == of, subject.startswith(f"{of}/", autoescape=True)),
        col(OutboxRow.type) != event_type(dataset.ReadEnded),
    )


def _entry(row: Any) -> dataset.AuditEntry:
    entry = entry_of(row)
    found = row.outcome, row.rows, row.size_bytes, row.end_time
    if found[0] is not None:
        entry.outcome, entry.rows, entry.size_bytes = found[0], found[1] or 0, found[2] or 0
        entry.end_time.FromDatetime(found[3])
    return entry
