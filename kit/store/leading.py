"""One process among replicas leads; the database says which. What the leader does is not known here."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.store.database import Database
from kit.store.faults import connecting


class Leadership:
    """Held until the block of ``leading`` ends, or until the connection that holds the lock is gone."""

    def __init__(self, connection: AsyncConnection | None) -> None:
        """For ``leading`` only."""
        self._connection = connection

    async def check(self) -> None:
        """Raises Unavailable when the lock's connection is gone: then another may lead."""
        if self._connection is not None:
            with connecting():
                await self._connection.execute(text("SELECT 1"))


@asynccontextmanager
async def leading(database: Database, role: str, *, poll_s: float = 1.0) -> AsyncIterator[Leadership]:
    """Waits until this process leads in ``role``; SQLite has no replicas. Raises Unavailable."""
    if not database.postgres:
        yield Leadership(None)
        return
    with connecting():
        connection = await database.engine.connect()
    try:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        lock = text("SELECT pg_try_advisory_lock(hashtext(:role))")
        with connecting():
            while not (await connection.execute(lock, {"role": f"sluice.{role}"})).scalar():  # noqa: ASYNC110
                await asyncio.sleep(poll_s)  # no event comes from another process
        yield Leadership(connection)
    finally:
        await connection.invalidate()  # the lock ends with its connection, so this one must not be pooled
        await connection.close()
