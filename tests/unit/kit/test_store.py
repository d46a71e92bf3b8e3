"""The store on SQLite: the suite, and what only a file can show."""

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import MetaData, update

from kit.rpc.errors import Corrupt, Exhausted, Invalid, Unavailable
from kit.store import BookmarkRow, Database, check, migrate
from kit.store.failpoints import armed
from kit.store.revise import revise
from sluice.trainer import v1 as trainer
from tests.unit.kit.store_suite import JOBS, JobRow, StoreSuite, insert, job


class TestSqlite(StoreSuite):
    """Every test of the suite on a file."""

    @pytest.fixture
    def url(self, tmp_path):
        return f"sqlite:///{tmp_path / 'db' / 'trainer.db'}"


async def test_the_file_is_private_and_in_wal_with_full_sync(tmp_path):
    path = tmp_path / "a.db"
    database = await Database.open(f"sqlite:///{path}", service="trainer")
    await migrate(database)
    assert path.stat().st_mode & 0o777 == 0o600
    async with database.read() as session:
        connection = await session.connection()
        pragmas = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    await database.close()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30000}


async def test_a_private_database_is_gone_when_closed():
    first, second = [await Database.open("sqlite://", service="trainer") for _ in range(2)]
    await first.create_tables(JobRow.metadata)
    await second.create_tables(JobRow.metadata)
    await insert(first, job())
    async with second.read() as session:
        assert await JOBS.count(session) == 0
    folder = Path(first._folder.name)
    await first.close()
    await second.close()
    assert not folder.exists()


async def test_a_full_database_is_exhausted_and_goes_on_when_there_is_room(tmp_path):
    database = await Database.open(f"sqlite:///{tmp_path / 'a.db'}", service="trainer")
    await database.create_tables(JobRow.metadata)

    async def fill(unit) -> None:
        connection = await unit.session.connection()
        await connection.exec_driver_sql("PRAGMA max_page_count = 40")
        try:
            for number in range(100):
                unit.emit(trainer.TrainingJobCreated(training_job="x" * 100_000), subject=str(number))
            await unit.write_events()
        finally:
            await connection.exec_driver_sql("PRAGMA max_page_count = 1000000")

    with pytest.raises(Exhausted, match="free disk space"):
        await database.transact(fill)
    await insert(database, job())
    await database.close()


async def test_a_damaged_file_is_corrupt(tmp_path):
    path = tmp_path / "a.db"
    path.write_bytes(b"no database at all" * 400)
    with pytest.raises(Corrupt):
        await Database.open(f"sqlite:///{path}", service="trainer")


async def test_a_server_that_is_not_there_is_unavailable():
    with pytest.raises(Unavailable):
        await Database.open("postgresql://nobody@127.0.0.1:1/none", service="trainer")


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense"])
async def test_other_urls_are_refused(url):
    with pytest.raises(Invalid, match="sqlite:///path"):
        await Database.open(url, service="trainer")


async def test_a_unit_inside_a_unit_is_a_mistake_that_is_told():
    database = await Database.open("sqlite://", service="trainer")
    async with database.begin():
        with pytest.raises(RuntimeError, match="has a unit open"):
            async with database.begin():
                pass
    await database.close()


async def test_a_newer_database_is_not_touched(tmp_path):
    path = tmp_path / "a.db"
    database = await Database.open(f"sqlite:///{path}", service="trainer")
    await migrate(database)
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = 'future'")
    raw.close()
    with pytest.raises(Invalid, match="future"):
        await migrate(database)
    await database.close()


def test_failpoints_are_read_from_their_text():
    points = armed("after_commit:kill,before_ack:stop:3")
    assert {name: trap.passes for name, trap in points.items()} == {"after_commit": 1, "before_ack": 3}
    with pytest.raises(SystemExit, match="name:kill"):
        armed("after_commit:kill:twice")
    with pytest.raises(SystemExit, match="name:kill"):
        armed("after_commit:explode")


WRITER = """
import asyncio, sys
from kit.store import Database
from sluice.trainer import v1 as trainer
async def main():
    database = await Database.open(sys.argv[1], service="trainer")
    async def work(unit):
        read = await JOBS.get(unit.session, "projects/p/trainingJobs/one")
        read.progress.done += 1
        unit.emit(trainer.TrainingJobCreated(training_job="x"), subject="x")
        await JOBS.update(unit, read)
    for _ in range(int(sys.argv[2])):
        await database.transact(work)
    await database.close()
sys.path.insert(0, "")
from tests.unit.kit.store_suite import JOBS
asyncio.run(main())
"""


async def test_a_lock_storm_of_connections_loses_nothing(tmp_path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    databases = await asyncio.gather(*(Database.open(url, service="trainer") for _ in range(6)))
    await databases[0].create_tables(JobRow.metadata)
    await insert(databases[0], job())

    async def increment(unit) -> None:
        read = await JOBS.get(unit.session, "projects/p/trainingJobs/one")
        read.progress.done += 1
        await JOBS.update(unit, read)

    async def write(database: Database) -> None:
        for _ in range(20):
            await database.transact(increment)

    await asyncio.gather(*map(write, databases))
    async with databases[0].read() as session:
        assert (await JOBS.get(session, "projects/p/trainingJobs/one")).progress.done == 120
    for database in databases:
        await database.close()


@pytest.mark.prove
async def test_a_lock_storm_of_processes_loses_nothing(tmp_path, writers=8, units=150):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    database = await Database.open(url, service="trainer")
    await database.create_tables(JobRow.metadata)
    await insert(database, job())
    await database.close()
    command = [sys.executable, "-c", WRITER, url, str(units)]
    processes = [await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE) for _ in range(writers)]
    for process in processes:
        _, stderr = await process.communicate()
        assert process.returncode == 0, stderr.decode()[-2000:]
    database = await Database.open(url, service="trainer")
    async with database.read() as session:
        assert (await JOBS.get(session, "projects/p/trainingJobs/one")).progress.done == writers * units
    await database.close()


async def test_a_revision_is_written_from_the_models_and_then_they_agree(tmp_path):
    folder = tmp_path / "versions"
    database = await Database.open("sqlite://", service="suite")
    await migrate(database, folder if folder.exists() else None)
    assert any("suite_job" in line for line in await check(database, JobRow.metadata))
    path = await revise("suite", "create jobs", folder, JobRow.metadata)
    assert path == folder / "0001_create_jobs.py"
    await migrate(database, folder)
    await migrate(database, folder)
    assert await check(database, JobRow.metadata) == []
    assert await revise("suite", "nothing", folder, JobRow.metadata) is None
    await insert(database, job())
    await database.close()


async def test_a_unit_that_writes_nothing_wakes_nobody() -> None:
    database = await Database.open("sqlite://", service="shelf")
    await database.create_tables(MetaData())
    seen = database.changed.count
    async with database.begin() as unit:
        await unit.session.get(BookmarkRow, "none")
    assert database.changed.count == seen
    one, other = database.changed_in(BookmarkRow.__tablename__, "shelf_book"), database.changed_in("shelf_book")
    async with database.begin() as unit:
        unit.session.add(BookmarkRow(key="one", value="1"))
    assert database.changed.count == seen + 1
    assert (one.count, other.count) == (1, 0)  # nor those who look at other tables
    async with database.begin() as unit:
        await unit.session.exec(update(BookmarkRow).values(value="2"))
    assert (one.count, other.count) == (2, 0)
    await database.close()
