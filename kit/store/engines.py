"""Opens the two engines, SQLite and PostgreSQL, so that a transaction means the same on both."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from kit.rpc.errors import Invalid

BUSY_TIMEOUT_MS = 30_000
#: In place of a table's name where it is not known.
ANY_TABLE = "*"


def open_engine(url: str, *, durable: bool = True) -> AsyncEngine:
    """An engine for `sqlite:///path` or `postgresql://…`; raises Invalid for any other URL.

    SQLite: write-ahead log, synchronous FULL (OFF when not ``durable``), foreign keys, file mode 0600.
    PostgreSQL: writers are SERIALIZABLE, as SQLite's are by nature, so no unit can lose another's update.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    backend = parsed.get_backend_name() if parsed is not None else ""
    if parsed is None or backend not in ("sqlite", "postgresql"):
        raise Invalid("the database URL is neither `sqlite:///path/to/file.db` nor `postgresql://user@host/name`")
    engine = _postgres(parsed) if backend == "postgresql" else _sqlite(parsed, durable)
    event.listen(engine.sync_engine, "after_cursor_execute", _note_write)
    return engine


def written_by(connection: AsyncConnection) -> Callable[[], set[str]]:
    """Says, when called, in which tables anything was inserted, updated or deleted over this connection from now on."""
    assert connection.sync_connection is not None
    info = connection.sync_connection.info
    info["wrote"] = set()
    return lambda: set(info["wrote"])


def _note_write(connection: Connection, _cursor: object, _sql: str, _values: object, context: Any, _many: bool) -> None:
    if context.isinsert or context.isupdate or context.isdelete:
        statement = context.compiled.statement if context.compiled else None  # text is not looked into
        connection.info.setdefault("wrote", set()).add(getattr(getattr(statement, "table", None), "name", ANY_TABLE))


def _postgres(parsed: URL) -> AsyncEngine:
    return create_async_engine(
        parsed.set(drivername="postgresql+asyncpg"),
        hide_parameters=True,  # what is stored does not belong into the log of an error
        pool_size=8,
        max_overflow=8,
        pool_timeout=20,
        pool_pre_ping=True,
    )


def _sqlite(parsed: URL, durable: bool) -> AsyncEngine:
    path = Path(parsed.database or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    engine = create_async_engine(
        parsed.set(drivername="sqlite+aiosqlite"),
        hide_parameters=True,  # as above
        # None: the driver begins nothing by itself; `_begin` says BEGIN or BEGIN IMMEDIATE.
        connect_args={"isolation_level": None, "timeout": BUSY_TIMEOUT_MS / 1000},
        pool_size=4,
        max_overflow=12,
        pool_timeout=20,
    )
    synchronous = "FULL" if durable else "OFF"

    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        _write_ahead(cursor)
        cursor.execute(f"PRAGMA synchronous={synchronous}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _write_ahead(cursor: Any) -> None:
    """Switches the file to WAL once; the switch ignores busy_timeout, so processes that start together repeat it."""
    for _ in range(100):
        with contextlib.suppress(sqlite3.OperationalError):  # "database is locked"
            cursor.execute("PRAGMA journal_mode")
            if cursor.fetchone()[0] == "wal":
                return
            cursor.execute("PRAGMA journal_mode=WAL")
            if cursor.fetchone()[0] == "wal":
                return
        time.sleep(0.02)
    cursor.execute("PRAGMA journal_mode=WAL")
