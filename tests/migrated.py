"""Private databases of a service: its revisions run once in a process, and each database after that is a copy."""

import sqlite3
from contextlib import closing
from pathlib import Path
from types import ModuleType

from kit.store import Database, migrate
from kit.store.database import Clock, utc_now

_first: dict[str, sqlite3.Connection] = {}


async def migrated(service: ModuleType, clock: Clock = utc_now) -> Database:
    """An open database with the tables of a service (its package); whoever asked closes it."""
    name = service.__name__.rpartition(".")[2]
    database = await Database.open("sqlite://", service=name, clock=clock)
    with closing(sqlite3.connect(database.engine.url.database or "")) as file:
        if name in _first:
            _first[name].backup(file)
        else:
            assert service.__file__
            await migrate(database, Path(service.__file__).parent / "migrations" / "versions")
            file.backup(kept := sqlite3.connect(":memory:"))
            _first[name] = kept
    return database
