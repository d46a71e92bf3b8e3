"""Which answers are deleted when: those that nobody will read again, and no others."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import services.evaluator
from kit.store import Database, migrate
from services.evaluator import domain, store
from sluice.types import v1 as types

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
async def database():
    opened = await Database.open("sqlite://", service="evaluator", clock=lambda: NOW)
    await migrate(opened, Path(services.evaluator.__file__).parent / "migrations" / "versions")
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
