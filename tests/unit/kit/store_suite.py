"""What any store must do: the one suite that SQLite and PostgreSQL both run."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlmodel import Field, col, select

from kit.rpc import paging
from kit.rpc.call import Call, acting, system_call
from kit.rpc.errors import AlreadyExists, Exhausted, Invalid, NotFound, Stale
from kit.store import Database, OutboxRow, RequestRow, ResourceRow, Resources, Unit, migrate, watch
from sluice.errors import v1 as errors
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types


class JobRow(ResourceRow, table=True):
    """A table as a service would have it."""

    __tablename__ = "suite_job"
    task_type: str = Field(index=True)
    creator: str = ""


JOBS = Resources(
    JobRow,
    trainer.TrainingJob,
    columns=lambda job: {"task_type": job.spec.task_type, "creator": job.creator},
    enums={"state": types.JobState},
)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


def job(name: str = "one", **fields: object) -> trainer.TrainingJob:
    return trainer.TrainingJob(name=f"projects/p/trainingJobs/{name}", **fields)


async def insert(database: Database, *jobs: trainer.TrainingJob) -> None:
    for each in jobs:
        async with database.begin() as unit:
            await JOBS.insert(unit, each)


class StoreSuite:
    """Subclasses give the fixture `url`: an empty database."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    async def database(self, url, clock):
        database = await Database.open(url, service="trainer", clock=clock)
        await migrate(database)
        await database.create_tables(JobRow.metadata)
        yield database
        await database.close()

    async def test_a_resource_comes_back_with_etag_and_times(self, database):
        async with database.begin() as unit:
            made = await JOBS.insert(unit, job(state=types.JOB_STATE_QUEUED, display_name="für 胸片"))
        async with database.read() as session:
            read = await JOBS.get(session, made.name)
        assert read == made
        assert (read.etag, read.display_name) == ("1", "für 胸片")
        assert read.create_time == read.update_time
        assert read.create_time.ToDatetime(UTC) == unit.now

    async def test_missing_and_doubled_names_are_named(self, database):
        async with database.read() as session:
            with pytest.raises(NotFound, match="projects/p/trainingJobs/x"):
                await JOBS.get(session, "projects/p/trainingJobs/x")
        await insert(database, job())
        with pytest.raises(AlreadyExists, match="projects/p/trainingJobs/one") as caught:
            await insert(database, job())
        assert caught.value.resource == ("TrainingJob", "projects/p/trainingJobs/one")

    async def test_a_unit_goes_on_after_an_insert_that_was_refused(self, database):
        await insert(database, job())
        async with database.begin() as unit:
            with pytest.raises(AlreadyExists):
                await JOBS.insert(unit, job())
            await JOBS.insert(unit, job("two"))
        async with database.read() as session:
            assert await JOBS.count(session) == 2

    async def test_a_unit_that_raises_leaves_nothing(self, database):
        before = database.changed.count
        with pytest.raises(KeyError):
            async with database.begin() as unit:
                await JOBS.insert(unit, job())
                unit.emit(trainer.TrainingJobCreated(training_job="x"), subject="x")
                raise KeyError
        async with database.read() as session:
            assert await JOBS.count(session) == 0
            assert (await session.exec(select(OutboxRow))).all() == []
        assert database.changed.count == before

    async def test_update_wants_the_present_etag(self, database):
        await insert(database, job())
        async with database.begin() as unit:
            first = await JOBS.get(unit.session, "projects/p/trainingJobs/one")
            second = await JOBS.get(unit.session, "projects/p/trainingJobs/one")
            assert (await JOBS.update(unit, first, etag="1")).etag == "2"
            with pytest.raises(Stale):
                await JOBS.update(unit, second)
            with pytest.raises(Stale):
                await JOBS.update(unit, first, etag="1")
            with pytest.raises(NotFound):
                await JOBS.update(unit, job("none"))

    async def test_of_racing_updates_with_one_etag_one_wins(self, database):
        await insert(database, job())

        async def race(number: int) -> int:
            async def work(unit: Unit) -> None:
                read = await JOBS.get(unit.session, "projects/p/trainingJobs/one")
                read.display_name = str(number)
                await JOBS.update(unit, read, etag="1")

            try:
                await database.transact(work)
            except Stale:
                return 0
            return 1

        assert sum(await asyncio.gather(*(race(number) for number in range(12)))) == 1

    async def test_no_increment_is_lost(self, database):
        await insert(database, job())

        async def increment(unit: Unit) -> None:
            read = await JOBS.get(unit.session, "projects/p/trainingJobs/one")
            await asyncio.sleep(0)
            read.progress.done += 1
            await JOBS.update(unit, read)

        await asyncio.gather(*(database.transact(increment) for _ in range(8)))
        async with database.read() as session:
            assert (await JOBS.get(session, "projects/p/trainingJobs/one")).progress.done == 8

    async def test_units_cannot_both_act_on_what_the_other_changes(self, database):
        """Write skew: each reads that nothing is queued and queues its own; one must see the other's."""

        async def queue(name: str) -> None:
            async def work(unit: Unit) -> None:
                if await JOBS.count(unit.session, state=types.JOB_STATE_QUEUED) == 0:
                    await asyncio.sleep(0.01)
                    await JOBS.insert(unit, job(name, state=types.JOB_STATE_QUEUED))

            await database.transact(work)

        await asyncio.gather(queue("a"), queue("b"))
        async with database.read() as session:
            assert await JOBS.count(session) == 1

    async def test_reads_do_not_wait_for_a_writer_and_see_no_half(self, database):
        async with database.begin() as unit:
            await JOBS.insert(unit, job())
            async with database.read() as session:
                assert await JOBS.count(session) == 0

    async def test_a_cancelled_unit_frees_the_writer(self, database):
        opened = asyncio.Event()

        async def hang() -> None:
            async with database.begin() as unit:
                await JOBS.insert(unit, job())
                opened.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(hang())
        await opened.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(insert(database, job()), 20)

    async def test_delete(self, database):
        await insert(database, job())
        async with database.begin() as unit:
            with pytest.raises(Stale):
                await JOBS.delete(unit, "projects/p/trainingJobs/one", etag="7")
            await JOBS.delete(unit, "projects/p/trainingJobs/one", etag="1")
            with pytest.raises(NotFound):
                await JOBS.delete(unit, "projects/p/trainingJobs/one")

    async def test_find_by_columns_and_several_values(self, database):
        await insert(database, job("a", state=3), job("b", state=5), job("c", state=9, creator="me"))
        async with database.read() as session:
            assert [each.name[-1] for each in await JOBS.find(session, state=[3, 5])] == ["a", "b"]
            assert [each.name[-1] for each in await JOBS.find(session, state=9, creator="me")] == ["c"]

    @pytest.mark.parametrize("newest_first", [False, True])
    async def test_pages_are_stable_under_inserts_and_deletes(self, database, newest_first):
        names = [f"j{number:02}" for number in range(10)]
        await insert(database, *(job(name) for name in names))
        seen, token = [], ""
        while True:
            async with database.read() as session:
                page, token = await JOBS.page(
                    session, parent="projects/p", page_size=3, page_token=token, newest_first=newest_first
                )
            seen += [each.name.rsplit("/", 1)[1] for each in page]
            if not token:
                break
            await insert(database, job(f"late{len(seen)}"))
            async with database.begin() as unit:
                await JOBS.delete(unit, page[0].name)
        assert len(seen) == len(set(seen))
        assert [name for name in seen if name in names] == (names[::-1] if newest_first else names)

    async def test_same_instant_rows_page_by_name(self, database):
        async with database.begin() as unit:
            for name in ("b", "a", "c"):
                await JOBS.insert(unit, job(name))
        async with database.read() as session:
            first, token = await JOBS.page(session, page_size=1)
            rest, end = await JOBS.page(session, page_size=2, page_token=token)
        assert [each.name[-1] for each in (*first, *rest)] == ["a", "b", "c"]
        assert end == ""

    async def test_what_was_to_be_stored_is_not_in_the_words_of_an_error(self, database):
        await insert(database, job("one"))
        with pytest.raises(AlreadyExists) as caught:
            await insert(database, job("one"))
        assert "SQL parameters hidden" in str(caught.value.__cause__)

    @pytest.mark.parametrize("cursor", [[], ["x", "y"], [1, 2], ["9999-12-31T23:59:59-23:59", "x"]])
    async def test_a_token_that_somebody_made_up_is_refused(self, database, cursor):
        made_up = paging.encode(cursor, JOBS.table.name, "projects/p", "", "False")
        async with database.read() as session:
            with pytest.raises(Invalid) as caught:
                await JOBS.page(session, parent="projects/p", page_token=made_up)
        assert caught.value.reason == errors.ERROR_REASON_INVALID_PAGE_TOKEN

    async def test_a_token_is_bound_to_its_query(self, database):
        await insert(database, job("a"), job("b"))
        async with database.read() as session:
            _, token = await JOBS.page(session, page_size=1)
            for other in ({"parent": "projects/q"}, {"newest_first": True}, {"filter": 'state = "FAILED"'}):
                with pytest.raises(Invalid) as caught:
                    await JOBS.page(session, page_size=1, page_token=token, **other)
                assert caught.value.reason == errors.ERROR_REASON_INVALID_PAGE_TOKEN

    async def test_filters_name_states_by_their_short_names(self, database):
        spec = trainer.TrainingJobSpec(task_type="dpo")
        await insert(
            database, job("a", state=types.JOB_STATE_RUNNING), job("b", state=types.JOB_STATE_FAILED, spec=spec)
        )
        async with database.read() as session:

            async def names(filter: str) -> list[str]:
                return [each.name[-1] for each in (await JOBS.page(session, filter=filter))[0]]

            assert await names('state = "RUNNING"') == ["a"]
            assert await names('state = "JOB_STATE_RUNNING"') == ["a"]
            assert await names('state != "RUNNING" AND task_type = "dpo"') == ["b"]
            assert await names('task_type = "\' OR 1=1 --"') == []
            assert await names("state = RUNNING OR task_type = dpo") == ["a", "b"]
            assert await names("NOT (state = RUNNING)") == await names("task_type > a task_type <= dpo") == ["b"]
            assert await names("create_time > 2026-11-21 AND update_time < 2026-11-21T13:00:00+01:00") == []
            assert await names("create_time >= 2026-11-21T12:00:00.002Z") == ["b"]
            for wrong in (
                'state = "RUNING"', 'creator = "x"', "RUNNING", 'body = "x"', "state > RUNNING", "revision = 1",
                "create_time > now", "create_time > 2026-11-21T12:00:00", "update_time = 0001-01-01T00:00:00+05:00",
            ):  # fmt: skip
                with pytest.raises(Invalid) as caught:
                    await names(wrong)
                assert caught.value.reason == errors.ERROR_REASON_INVALID_FILTER

    async def test_a_dash_spans_parents(self, database):
        await insert(database, job("a"), trainer.TrainingJob(name="projects/q_1/trainingJobs/b"))
        async with database.read() as session:
            assert len((await JOBS.page(session, parent="projects/-"))[0]) == 2
            assert len((await JOBS.page(session, parent="projects/q"))[0]) == 0

    async def test_events_commit_with_the_unit_in_order(self, database):
        async with database.begin() as unit:
            ids = [unit.emit(trainer.TrainingJobCreated(training_job=str(n)), subject=f"s{n}") for n in range(3)]
        async with database.read() as session:
            rows = (await session.exec(select(OutboxRow).order_by(col(OutboxRow.sequence)))).all()
        assert [row.id for row in rows] == ids
        assert rows[0].type == "sluice.trainer.v1.training_job.created"
        assert (rows[2].subject, rows[2].time, rows[2].published_at) == ("s2", unit.now, None)

    async def test_sequence_follows_the_order_of_commits(self, database):
        """A reader of the log by number must never find a lower number later."""

        async def emit(n: int) -> None:
            async def work(unit: Unit) -> None:
                unit.emit(trainer.TrainingJobCreated(training_job=str(n)), subject=str(n))
                await asyncio.sleep(0.001 * (n % 3))

            await database.transact(work)

        tasks = [asyncio.create_task(emit(n)) for n in range(20)]
        highest, seen = 0, []
        async with asyncio.timeout(30):
            while len(seen) < 20:
                async with database.read() as session:
                    query = select(OutboxRow.sequence).where(col(OutboxRow.sequence) > highest)
                    new = sorted((await session.exec(query)).all())
                seen += new
                highest = max([highest, *new])
                await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert len(seen) == 20

    async def test_too_large_an_event_is_refused_before_the_commit(self, database):
        with pytest.raises(Exhausted) as caught:
            async with database.begin() as unit:
                unit.emit(trainer.TrainingJobCreated(training_job="x" * 600_000), subject="x")
        assert caught.value.reason == errors.ERROR_REASON_MESSAGE_TOO_LARGE

    async def _create(self, database: Database, request: trainer.CreateTrainingJobRequest) -> trainer.TrainingJob:
        async def work(unit: Unit) -> trainer.CreateTrainingJobResponse:
            made = await JOBS.insert(unit, job(request.training_job.display_name))
            return trainer.CreateTrainingJobResponse(training_job=made)

        return (await database.answer(request, work)).training_job

    def _request(self, request_id: str, name: str = "one") -> trainer.CreateTrainingJobRequest:
        return trainer.CreateTrainingJobRequest(
            request_id=request_id, training_job=trainer.TrainingJob(display_name=name)
        )

    async def test_a_repeated_request_gets_the_first_answer(self, database):
        first = await self._create(database, self._request("r1"))
        assert await self._create(database, self._request("r1")) == first
        with pytest.raises(AlreadyExists):
            await self._create(database, self._request("r2"))
        with pytest.raises(AlreadyExists):
            await self._create(database, self._request(""))

    async def test_concurrent_repeats_get_the_first_answer(self, database):
        answers = await asyncio.gather(*(self._create(database, self._request("r1")) for _ in range(6)))
        assert all(answer == answers[0] for answer in answers)
        async with database.read() as session:
            assert await JOBS.count(session) == 1

    async def test_another_body_is_refused(self, database):
        await self._create(database, self._request("r1"))
        with pytest.raises(Invalid) as caught:
            await self._create(database, self._request("r1", "two"))
        assert caught.value.reason == errors.ERROR_REASON_REQUEST_ID_REUSED

    async def test_request_ids_belong_to_principal_and_method(self, database):
        await self._create(database, self._request("r1"))
        with acting(system_call("registry")):
            await self._create(database, self._request("r1", "two"))
        with acting(Call(system_call("registry").principal, method="/other")):
            await self._create(database, self._request("r1", "three"))

    async def test_a_failed_request_may_be_repeated(self, database):
        async def fail(unit: Unit) -> trainer.CreateTrainingJobResponse:
            raise Exhausted("no room")

        with pytest.raises(Exhausted):
            await database.answer(self._request("r1"), fail)
        await self._create(database, self._request("r1"))

    async def test_answers_are_forgotten_after_seven_days(self, database, clock):
        await self._create(database, self._request("r1"))
        clock.now += timedelta(days=7, minutes=1)
        await self._create(database, self._request("r1", "two"))
        async with database.read() as session:
            assert len((await session.exec(select(RequestRow))).all()) == 1

    async def test_what_is_kept_of_an_answer_may_lack_its_secret(self, database):
        async def work(unit: Unit) -> trainer.CreateTrainingJobResponse:
            return trainer.CreateTrainingJobResponse(training_job=job(display_name="secret"))

        def kept(response: trainer.CreateTrainingJobResponse) -> trainer.CreateTrainingJobResponse:
            return trainer.CreateTrainingJobResponse(training_job=job())

        answers = [await database.answer(self._request("r1"), work, kept=kept) for _ in range(2)]
        assert [answer.training_job.display_name for answer in answers] == ["secret", ""]

    async def test_watch_gives_the_present_and_then_each_change(self, database):
        await insert(database, job())

        async def read() -> trainer.TrainingJob:
            async with database.read() as session:
                return await JOBS.get(session, "projects/p/trainingJobs/one")

        snapshots = watch(read, database.changed, every_s=60)
        assert (await anext(snapshots)).etag == "1"
        later = asyncio.ensure_future(anext(snapshots))
        await insert(database, job("other"))
        async with database.begin() as unit:
            await JOBS.update(unit, await JOBS.get(unit.session, "projects/p/trainingJobs/one"))
        assert (await asyncio.wait_for(later, 20)).etag == "2"

    async def test_a_database_belongs_to_one_service(self, database, url):
        other = await Database.open(url, service="registry")
        with pytest.raises(Invalid, match="belongs to the service `trainer`"):
            await migrate(other)
        await other.close()

    async def test_migrations_agree_with_the_models(self, database, tmp_path: Path):
        from kit.store import check

        await migrate(database)
        assert await check(database, JobRow.metadata) == []
