"""Which answers are deleted when: those that nobody will read again, and no others."""

from datetime import UTC, datetime, timedelta

import pytest

import services.evaluator
from services.evaluator import commands, domain, store
from sluice.evaluator import v1 as evaluator
from sluice.types import v1 as types
from tests.migrated import migrated

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
async def database():
    opened = await migrated(services.evaluator, clock=lambda: NOW)
    yield opened
    await opened.close()


@pytest.mark.parametrize(
    ("state", "days", "goes"),
    [
        ("RUNNING", 30, False),
        ("CANCELLING", 30, False),
        ("SUCCEEDED", 0, True),
        ("CANCELLED", 0, True),
        ("EXPIRED", 0, True),
        ("FAILED", 6, False),  # a retry goes on from them
        ("FAILED", 8, True),
    ],
)
async def test_answers_go_when_nobody_will_read_them_again(database, state, days, goes):
    evaluation = domain.new_evaluation("projects/p/evaluations/e", "projects/p/models/m/versions/1", "", NOW)
    evaluation.state = types.JobState.Value(f"JOB_STATE_{state}")
    async with database.begin() as unit:
        await store.EVALUATIONS.insert(unit, evaluation)
        for number, digest in enumerate("aab"):
            row = {"evaluation": evaluation.name, "model_version": evaluation.model_version}
            unit.session.add(store.BatchRow(**row, number=number, digest=digest))
    async with database.read() as session:
        found = await store.leftovers(session, NOW + timedelta(days=days - 7))
    assert found == ({evaluation.name: {"a", "b"}} if goes else {})
    await database.transact(lambda unit: store.drop_batches(unit, evaluation.name, ["a"]))
    async with database.read() as session:
        left = await store.batches(session, evaluation.name, evaluation.model_version)
    assert [batch.digest for batch in left] == ["b"]


@pytest.mark.parametrize("same", [True, False])
async def test_answers_to_rows_that_are_others_by_now_are_not_taken_over(database, same):
    evaluation = domain.new_evaluation("projects/p/evaluations/e", "projects/p/models/m/versions/1", "", NOW)
    evaluation.state, evaluation.suite_digest = types.JOB_STATE_QUEUED, "sha256:a"
    plan = domain.Plan(evaluator.Suite(), "sha256:a" if same else "sha256:b", "", "", "")
    row = {"evaluation": evaluation.name, "model_version": evaluation.model_version}
    async with database.begin() as unit:
        await store.EVALUATIONS.insert(unit, evaluation)
        unit.session.add(store.BatchRow(**row, number=1, digest="c"))
    await database.transact(lambda unit: commands.claim(unit, evaluation.name, plan))
    async with database.read() as session:
        assert bool(await store.batches(session, *row.values())) == same
        assert [blob.digest for blob in await store.doomed(session, [])] == ([] if same else ["c"])
