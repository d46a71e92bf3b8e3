"""What the tests of the bus share: two services around one broker, and waiting without sleeping."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlmodel import col, func, select

from kit.bus import Bus, Consumer, Relay, Retention
from kit.bus.inbox import Handlers
from kit.store import Database, InboxRow, OutboxRow, Unit
from kit.store.tables import KIT
from sluice.events import v1 as events
from sluice.trainer import v1 as trainer
from tests.servers import NatsServer


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 60.0) -> float:
    """Waits until a condition holds and returns how long that took; fails the test after ``timeout_s``."""
    begin = time.monotonic()
    while not await condition():
        if time.monotonic() - begin > timeout_s:
            raise AssertionError(f"not within {timeout_s} s")
        await asyncio.sleep(0.02)
    return time.monotonic() - begin


async def emit(database: Database, *names: str) -> list[str]:
    """Commits one event a name, each in its own unit; returns their ids."""
    ids = []
    for name in names:
        async with database.begin() as unit:
            message = trainer.TrainingJobCreated(training_job=name, task_type="sft")
            ids.append(unit.emit(message, subject=f"projects/p/trainingJobs/{name}"))
    return ids


async def unpublished(database: Database) -> int:
    """How many events wait in the outbox."""
    async with database.read() as session:
        query = select(func.count()).select_from(OutboxRow).where(col(OutboxRow.published_at).is_(None))
        return int((await session.exec(query)).one())


@dataclass
class Pair:
    """The trainer, which emits, and the registry, which counts what its handler did in its own database."""

    trainer: Database
    registry: Database
    trainer_bus: Bus
    registry_bus: Bus
    effects: list[str] = field(default_factory=list)

    async def handle(self, unit: Unit, event: events.Event, message: trainer.TrainingJobCreated) -> None:
        """The effect: a row in the registry's own database (here its log), one for each time it was done."""
        unit.emit(trainer.TrainingJobChanged(training_job=message.training_job), subject=message.training_job)

    @property
    def handlers(self) -> Handlers:
        """What the registry takes."""
        return {trainer.TrainingJobCreated: self.handle}

    async def done(self) -> list[str]:
        """The names whose effect is committed, as often as it is."""
        async with self.registry.read() as session:
            query = select(OutboxRow.subject).order_by(col(OutboxRow.sequence))
            return list((await session.exec(query)).all())

    async def has(self, count: int) -> bool:
        """Whether so many effects are there."""
        return len(await self.done()) >= count

    async def inbox(self) -> int:
        """How many events the registry recorded."""
        async with self.registry.read() as session:
            return int((await session.exec(select(func.count()).select_from(InboxRow))).one())


@asynccontextmanager
async def pair(server: NatsServer, retention: Retention | None = None) -> AsyncIterator[Pair]:
    """Two services with private databases, connected."""
    first = await Database.open("sqlite://", service="trainer")
    second = await Database.open("sqlite://", service="registry")
    for database in (first, second):
        await database.create_tables(KIT)
    buses = [await server.bus(service, retention) for service in ("trainer", "registry")]
    try:
        yield Pair(first, second, *buses)
    finally:
        for bus in buses:
            await bus.close()
        await first.close()
        await second.close()


@asynccontextmanager
async def running(*works: Relay | Consumer | object) -> AsyncIterator[list["asyncio.Task[None]"]]:
    """Runs relays, consumers and reconcilers for as long as the block; an exception of theirs fails the test."""
    tasks = [asyncio.create_task(work.run()) for work in works]  # type: ignore[attr-defined]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
