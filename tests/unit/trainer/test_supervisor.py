"""The supervisor on a database in memory, with processes that do nothing in place of agents."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from training_jobs import S, sft_spec

import services.trainer
from kit.rpc.errors import NotFound, Unavailable
from kit.store import Database
from services.trainer import commands, store
from services.trainer.backends.local import LocalBackend
from services.trainer.folders import JobFolder
from services.trainer.supervisor import Supervisor
from sluice.errors import v1 as errors
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types
from tests.migrated import migrated


class World:
    """A trainer without a server; time goes only when it is told to."""

    def __init__(self, database: Database, jobs: Path) -> None:
        self.database, self.jobs = database, jobs
        self.now, self.monotonic_s = datetime(2026, 11, 21, tzinfo=UTC), 0.0
        self.asked: list[str] = []
        self.answers: dict[str, Exception] = {}
        database.clock = lambda: self.now
        self.backend = LocalBackend(jobs, {}, ["sleep", "60"])
        self.supervisor = Supervisor(
            database,
            self.backend,
            self.resolve,
            max_jobs=2,
            heartbeat_s=30,
            waiting_limit_s=3600,
            monotonic=lambda: self.monotonic_s,
        )

    async def resolve(self, spec: trainer.TrainingJobSpec) -> trainer.TrainingJobSpec:
        self.asked.append(spec.model)
        if spec.model in self.answers:
            raise self.answers[spec.model]
        return spec

    async def create(self, model: str) -> str:
        request = trainer.CreateTrainingJobRequest(parent="projects/p")
        answer = await self.database.transact(lambda unit: commands.create(unit, request, sft_spec(model=model)))
        return answer.training_job.name

    async def look(self, after_s: float = 1.0) -> None:
        self.now += timedelta(seconds=after_s)
        self.monotonic_s += after_s
        await self.supervisor.step()

    async def states(self, names: Sequence[str]) -> list[str]:
        return [types.JobState.Name((await self.get(name)).state).removeprefix("JOB_STATE_") for name in names]

    async def get(self, name: str) -> trainer.TrainingJob:
        async with self.database.read() as session:
            return await store.JOBS.get(session, name)

    async def begun(self) -> str:
        """A job whose agent runs."""
        name = await self.create("m")
        for _ in range(3):
            await self.look()
        assert await self.placed(name)
        return name

    async def placed(self, name: str) -> bool:
        """Whether a backend holds an agent of the job."""
        async with self.database.read() as session:
            row = await session.get(store.PlacementRow, name)
        return row is not None and bool(row.handle)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    database = await migrated(services.trainer)
    made = World(database, tmp_path / "jobs")
    yield made
    async with database.read() as session:
        for row, _ in await store.busy_placements(session, made.now):
            if row.handle:
                await made.backend.stop(row.handle)
    await database.close()


async def test_a_pause_of_the_trainer_is_no_silence_of_its_agents(world: World) -> None:
    name = await world.begun()
    await world.look(after_s=600)  # the process was stopped, or its database away
    assert await world.states([name]) == ["PREPARING"]
    await world.look()
    assert await world.states([name]) == ["PREPARING"]


async def test_an_agent_that_says_nothing_is_lost_all_the_same(world: World) -> None:
    name = await world.begun()
    for _ in range(29):
        await world.look()
    assert (await world.get(name)).attempts[0].outcome == ""
    for _ in range(3):
        await world.look()
    assert (await world.get(name)).attempts[0].outcome == "lost"


async def test_a_peer_that_is_away_is_asked_once_a_look(world: World) -> None:
    names = [await world.create(model) for model in ("a", "b", "c")]
    world.answers = {model: Unavailable("the dataset service does not answer") for model in "abc"}
    await world.look()
    assert world.asked == ["a"], "those that run must not wait for its time-outs"
    world.answers = {}
    await world.look()
    assert await world.states(names) == ["QUEUED"] * 3


async def test_a_job_that_can_never_be_checked_fails_in_the_end(world: World) -> None:
    name = await world.create("a")
    world.answers = {"a": Unavailable("the dataset service does not answer")}
    await world.look()
    assert await world.states([name]) == ["VALIDATING"]
    await world.look(after_s=3601)
    job = await world.get(name)
    assert (job.state, job.failure.reason) == (S["FAILED"], errors.ERROR_REASON_SERVICE_UNAVAILABLE)


async def test_a_job_that_breaks_the_trainer_leaves_the_others_alone(world: World) -> None:
    names = [await world.create(model) for model in ("broken", "gone", "good")]
    world.answers = {"broken": RuntimeError("a bug"), "gone": NotFound("the rows are gone")}
    await world.look()
    assert await world.states(names) == ["VALIDATING", "FAILED", "QUEUED"]


async def test_an_attempt_that_cannot_be_started_ends_at_its_time_limit(world: World) -> None:
    world.supervisor.backend = LocalBackend(world.jobs, {}, ["no such program"])
    name = await world.create("m")
    for _ in range(3):
        await world.look()
    assert await world.states([name]) == ["PREPARING"]
    assert not await world.placed(name)
    await world.look(after_s=8 * 86_400)
    job = await world.get(name)
    assert (job.state, job.failure.reason) == (S["FAILED"], errors.ERROR_REASON_TIME_LIMIT)


async def test_the_checkpoint_of_a_failed_job_goes_after_the_waiting_limit(world: World) -> None:
    name = await world.begun()
    checkpoints = JobFolder.of(world.jobs, name).path / "checkpoints"
    checkpoints.mkdir()
    report = trainer.ReportAttemptRequest(training_job=name, epoch=1, outcome=trainer.ATTEMPT_OUTCOME_FAILED)
    await world.database.transact(lambda unit: commands.report(unit, report))
    for _ in range(40):  # the agent may take half a minute to go by itself
        await world.look()
    assert not await world.placed(name)
    assert checkpoints.exists(), "a retry goes on from it"
    await world.look(after_s=3600)
    assert not checkpoints.exists()
    admitted: commands.Admitted = asyncio.get_running_loop().create_future()
    admitted.set_result(None)
    again = trainer.RetryTrainingJobRequest(name=name)
    await world.database.transact(lambda unit: commands.retry(unit, again, admitted))
    for _ in range(2):
        await world.look()
    assert (await world.get(name)).attempts[-1].epoch == 2
