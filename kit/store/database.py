"""The database of one service: write units, reads, and answers that a repeated request gets again."""

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, TypeVar

from google.protobuf.message import Message
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.store.answers import answer, answers
from kit.store.engines import ANY_TABLE, open_engine, written_by
from kit.store.failpoints import failpoint
from kit.store.faults import Contended, connecting, sanitized
from kit.store.signals import Signal
from kit.store.tables import KIT
from kit.store.unit import Unit

Clock = Callable[[], datetime]
T = TypeVar("T")
ResponseT = TypeVar("ResponseT", bound=Message)
ATTEMPTS = 8


@asynccontextmanager
async def _session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    """A session whose transaction has begun: under the write lock, if it is to write, before anything is read."""
    session = AsyncSession(engine, expire_on_commit=False)
    try:
        with connecting():
            await session.connection()
        yield session
    finally:
        # A cancelled task waits for its rollback all the same; else the next writer would meet the open transaction.
        closing, cancelled = asyncio.create_task(session.close()), None
        while not closing.done():
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError as error:
                cancelled = error
        closing.result()
        if cancelled is not None:
            raise cancelled


def utc_now() -> datetime:
    """The time of this machine, aware."""
    return datetime.now(UTC)


class Database:
    """One SQL database. No driver error leaves it: only faults, or exceptions of the caller's own code.

    ``changed`` is fired after each commit of this process that wrote something.
    """

    def __init__(
        self, engine: AsyncEngine, service: str, clock: Clock, folder: "tempfile.TemporaryDirectory[str] | None"
    ):
        """For ``open`` only."""
        self.engine = engine
        self.service = service
        self.clock = clock
        self.changed = Signal()
        self._changed_in: list[tuple[frozenset[str], Signal]] = []
        self.postgres = engine.dialect.name == "postgresql"
        self._folder = folder
        self._writing = asyncio.Lock()  # SQLite has one writer; waiting here is fair and costs no lock polling
        self._writer: asyncio.Task[object] | None = None

    @classmethod
    async def open(cls, url: str, *, service: str, clock: Clock = utc_now) -> Self:
        """Opens `sqlite:///file.db`, `postgresql://…`, or `sqlite://`: a private one, gone when it is closed.

        Raises Invalid for another URL, Unavailable when the server does not answer.
        """
        folder = None
        if url == "sqlite://":
            # A file all the same, so that reads and writes overlap just as they do in production.
            folder = tempfile.TemporaryDirectory(prefix="sluice-")
            url = f"sqlite:///{Path(folder.name) / 'memory.db'}"
        with connecting():
            database = cls(open_engine(url, durable=folder is None), service, clock, folder)
            async with database.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        return database

    def changed_in(self, *tables: str) -> Signal:
        """As ``changed``, for some tables: for a loop that lives as long as the process and looks at no others."""
        signal = Signal()
        self._changed_in.append((frozenset(tables), signal))
        return signal

    async def close(self) -> None:
        """Closes all connections."""
        await self.engine.dispose()
        if self._folder is not None:
            self._folder.cleanup()

    async def create_tables(self, metadata: MetaData) -> None:
        """Creates the kit's tables and these without migrations; for tests and scratch databases."""
        with sanitized():
            async with self.engine.execution_options(writes=True).begin() as connection:
                await connection.run_sync(KIT.create_all)
                await connection.run_sync(metadata.create_all)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session over one consistent snapshot; what is written in it is thrown away."""
        with sanitized():
            options = {"isolation_level": "REPEATABLE READ"} if self.postgres else {}
            async with _session(self.engine.execution_options(**options)) as session:
                yield session

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Unit]:
        """One write unit: committed when the block ends, rolled back when it raises.

        Units run as if one after the other. Raises Contended (an Unavailable) when another was in the way and
        the block must run again; ``transact`` and ``answer`` do that by themselves.
        """
        if self.postgres:
            async with self._unit() as unit:
                yield unit
            return
        if self._writer is asyncio.current_task():
            raise RuntimeError("this task has a unit open; pass that one on instead of beginning another")
        async with self._writing:
            self._writer = asyncio.current_task()
            try:
                async with self._unit() as unit:
                    yield unit
            finally:
                self._writer = None

    @asynccontextmanager
    async def _unit(self) -> AsyncIterator[Unit]:
        options = {"isolation_level": "SERIALIZABLE"} if self.postgres else {"writes": True}
        with sanitized():
            async with _session(self.engine.execution_options(**options)) as session:
                unit = Unit(session, self.clock())
                written = written_by(await session.connection())
                yield unit
                await unit.write_events()
                failpoint("before_commit")
                await session.commit()
        failpoint("after_commit")
        if tables := written():  # a loop that looks, finds nothing to do and commits must not wake itself
            self.changed.fire()
            for wanted, signal in self._changed_in:
                if not wanted.isdisjoint(tables) or ANY_TABLE in tables:
                    signal.fire()

    async def transact(self, work: Callable[[Unit], Awaitable[T]]) -> T:
        """Runs ``work`` in one unit and returns what it does; again, from the start, when another was in the way."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self.begin() as unit:
                    return await work(unit)
            except Contended:
                if attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))
        raise AssertionError("unreachable")

    async def answer(
        self,
        request: Message,
        work: Callable[[Unit], Awaitable[ResponseT]],
        *,
        kept: Callable[[ResponseT], ResponseT] | None = None,
    ) -> ResponseT:
        """Runs ``work`` in one unit, once for each request id; a repeat gets the first answer for 7 days.

        The id's scope is principal and method. Raises Invalid (REQUEST_ID_REUSED) when the same id comes with
        another body. ``kept`` gives what is stored of a response that must not be, such as a key shown once.
        """
        return await answer(self, request, work, kept)

    async def answers(
        self,
        requests: Sequence[Message],
        work: Callable[[Unit, Sequence[int]], Awaitable[list[ResponseT]]],
    ) -> list[ResponseT]:
        """The same for several requests of one caller, whose ids are distinct: ``work`` is given the places of those
        that are new and returns the answer to each.

        Raises whatever would be raised for any of them, and has then done nothing: each is to be asked alone.
        """
        return await answers(self, requests, work)
