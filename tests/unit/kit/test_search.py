"""Search on SQLite: the suite, and what only its index could get wrong."""

import pytest

from tests.unit.kit.search_suite import BOOKS, START, SearchSuite, book, ids, insert


class TestSqlite(SearchSuite):
    """Every test of the suite on a file."""

    @pytest.fixture
    def url(self, tmp_path):
        return f"sqlite:///{tmp_path / 'search.db'}"

    async def test_rows_of_one_instant_and_a_clock_that_went_back_keep_their_order(self, database):
        """FTS5 finds by `rowid`: two rows of one place would be one."""
        await insert(database, book("b"), book("a"))
        self.time = START.replace(year=2020)
        await insert(database, book("c"))
        assert await ids(database, "") == await ids(database, "-nothing") == ["b", "a", "c"]

    async def test_the_index_holds_what_the_rows_hold(self, database):
        """FTS5 compares the two by itself; a trigger that told it something else would show here."""
        for turn in range(8):
            async with database.begin() as unit:
                for number in range(20):
                    await BOOKS.insert(unit, book(f"{turn}-{number}", description=f"w{number} 诊断{turn}"))
                changed = await BOOKS.get(unit.session, f"projects/p/datasets/{turn}-3")
                changed.description = "断诊 other"
                await BOOKS.update(unit, await BOOKS.update(unit, changed))
                await BOOKS.delete(unit, f"projects/p/datasets/{turn}-5")
        async with database.begin() as unit:
            check = "INSERT INTO search_suite_book (search_suite_book, rank) VALUES ('integrity-check', 1)"
            await (await unit.session.connection()).exec_driver_sql(check)
        assert len(await ids(database, "断诊", page_size=100)) == 8
