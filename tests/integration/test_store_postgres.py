"""The store on a real PostgreSQL: the same suite, and what only a server can show."""

import pytest

from kit.rpc.errors import Unavailable
from kit.store import Database, migrate
from tests.servers import new_database, postgres_server
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
