"""The store on a real PostgreSQL: the same suite, and what only a server can show."""

import asyncio
from pathlib import Path

import pytest

import services.dataset
import services.trainer
from kit.blobs import FileKek, open_store
from kit.rpc.errors import Unavailable
from kit.store import Database, leading, migrate
from services.dataset import checks, parts
from services.dataset import commands as dataset_commands
from services.dataset import store as dataset_store
from services.dataset.feeds.store import FEEDS
from services.dataset.servicer import FeedServicer
from services.trainer import commands, domain, store
from services.trainer.backends.local import LocalBackend
from services.trainer.supervisor import Supervisor
from sluice.dataset import v1 as dataset
from sluice.trainer import v1 as trainer
from tests.servers import new_database, postgres_server
from tests.unit.dataset.erasure_world import PARENT, World, rows
from tests.unit.dataset.upgrade import check_upgraded, upgraded
from tests.unit.kit.search_suite import SearchSuite
from tests.unit.kit.store_suite import JobRow, StoreSuite, insert, job

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def server():
    with postgres_server() as url:
        yield url


class TestPostgres(StoreSuite):
    """Every test of the suite on PostgreSQL."""

    @pytest.fixture
    async def url(self, server):
        return await new_database(server)


class TestPostgresSearch(SearchSuite):
    """Every test of the suite of searches."""

    @pytest.fixture
    async def url(self, server):
        return await new_database(server)


async def test_datasets_from_before_there_was_a_search_are_found(server, tmp_path):
    database = await upgraded(await new_database(server), tmp_path)
    await check_upgraded(database)
    await database.close()


async def test_a_lost_connection_is_unavailable_and_the_next_unit_works(server):
    database = await Database.open(await new_database(server), service="trainer")
    await migrate(database)
    await database.create_tables(JobRow.metadata)
    with pytest.raises(Unavailable):
        async with database.begin() as unit:
            connection = await unit.session.connection()
            await insert_through_a_dead_line(connection)
    await insert(database, job())
    await database.close()


async def insert_through_a_dead_line(connection) -> None:
    await connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
    await connection.exec_driver_sql("SELECT 1")


async def test_one_process_leads_and_another_takes_over_when_its_line_breaks(server):
    url = await new_database(server)
    first, second = [await Database.open(url, service="trainer") for _ in range(2)]
    followed, ended = asyncio.Event(), asyncio.Event()

    async def follow():
        async with leading(second, "trainer", poll_s=0.02) as leadership:
            followed.set()
            await ended.wait()
            await leadership.check()

    async with asyncio.timeout(20):
        async with leading(first, "trainer") as leadership:
            following = asyncio.create_task(follow())
            await leadership.check()
            await asyncio.sleep(0.1)
            assert not followed.is_set()
            async with second.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                holders = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
                await connection.exec_driver_sql(holders)
            await followed.wait()
            with pytest.raises(Unavailable):
                await leadership.check()
        ended.set()
        await following
    for database in (first, second):
        await database.close()


async def test_a_supervisor_outlives_its_database_and_of_two_one_works(server, tmp_path):
    url = await new_database(server)
    databases = [await Database.open(url, service="trainer") for _ in range(2)]
    await migrate(databases[0], Path(services.trainer.__file__).parent / "migrations" / "versions")
    checked = []

    async def resolve(spec):
        checked.append(spec.model)
        return spec

    def supervisor(database, folder):
        backend = LocalBackend(tmp_path / folder, {}, ["no such program"])
        limits = {"max_jobs": 1, "heartbeat_s": 30, "waiting_limit_s": 3600}
        return asyncio.create_task(Supervisor(database, backend, resolve, **limits).run())

    async def submit(model):
        request = trainer.CreateTrainingJobRequest(parent="projects/p")
        spec = trainer.TrainingJobSpec(task_type="sft", model=model, sft=trainer.SftRecipe())
        made = await databases[1].transact(lambda unit: commands.create(unit, request, spec))
        while await state_of(made.training_job.name) in domain.NEW:  # noqa: ASYNC110 - the other may do it
            await asyncio.sleep(0.02)

    async def state_of(name):
        async with databases[1].read() as session:
            return (await store.JOBS.get(session, name)).state

    loops = [supervisor(database, str(at)) for at, database in enumerate(databases)]
    async with asyncio.timeout(20):
        await submit("before")
        async with databases[1].engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            await connection.exec_driver_sql(f"{others} AND datname = current_database()")
        await submit("after")
    assert checked == ["before", "after"]
    assert not any(loop.done() for loop in loops)
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)
    for database in databases:
        await database.close()


async def test_rows_that_two_processes_append_to_a_feed_at_a_time_all_have_their_place(server, tmp_path):
    url = await new_database(server)
    databases = [await Database.open(url, service="dataset") for _ in range(2)]
    await migrate(databases[0], Path(services.dataset.__file__).parent / "migrations" / "versions")
    blobs = open_store(f"file://{tmp_path / 'blobs'}", FileKek.create(tmp_path / "kek", home=tmp_path / "home"))
    first, *_ = servicers = [FeedServicer(database, blobs) for database in databases]
    wanted = dataset.Dataset(display_name="d", task_type="sft")
    await databases[0].transact(lambda unit: dataset_commands.create_dataset(unit, "projects/p", wanted))
    request = dataset.CreateFeedRequest(parent="projects/p/datasets/d", feed=dataset.Feed(display_name="f"))
    name = (await first.CreateFeed(request, None)).feed.name
    rows = [dataset.AppendRowsRequest(name=name, rows=b'{"row": %d}' % number) for number in range(12)]

    async def append(servicer, theirs):
        for row in theirs:  # one by one: those that come to a process at a time are stored together
            await servicer.AppendRows(row, None)

    await asyncio.gather(*(append(servicer, rows[at::2]) for at, servicer in enumerate(servicers)))
    async with databases[1].read() as session:
        feed = await FEEDS.get(session, name)
        pieces = await dataset_store.pieces(session, feed.next_upload)
    assert feed.waiting_rows == len(pieces) == 12
    assert [piece.start for piece in pieces] == [sum(each.size for each in pieces[:at]) for at in range(12)]
    for database in databases:
        await database.close()


async def test_an_erasure_rewrites_versions_on_postgresql_and_appends_do_not_bring_rows_back(server, tmp_path):
    database = await Database.open(await new_database(server), service="dataset")
    await migrate(database, Path(services.dataset.__file__).parent / "migrations" / "versions")
    spare = checks.Spare()
    world = World(database, tmp_path, spare)
    await world.dataset()
    wrong = b'{"group": "P17", "txt": 1}\n'
    await world.upload(rows("P1", "P17", mark="a") + wrong, on_error=dataset.ON_ERROR_QUARANTINE)
    await world.upload(rows("P2", "P17", mark="b"), append=True)
    old = set(world.files())
    ordered = [await world.order("group", value) for value in ("P17", "P2")]
    appended = await world.upload(rows("P3", "P17", mark="c"), append=True, look=False)
    for _ in range(3):  # two erasures over the same versions, and rows that come meanwhile
        await world.look()
    first, second = [await world.erasure(name) for name in ordered]
    assert [each.state for each in (first, second)] == [dataset.ERASURE_STATE_DONE] * 2
    assert [await world.groups(number) for number in (1, 2, 3)] == [["P1"], ["P1"], ["P1", "P3"]]
    assert first.quarantined_rows_removed == 1 and not old & set(world.files())
    async with database.read() as session:
        assert (await dataset_store.UPLOADS.get(session, appended.name)).forgotten_rows == 1
        assert {part.digest for part in await parts.of(session, f"{PARENT}/versions/1")}
    await spare.close()
    await database.close()
