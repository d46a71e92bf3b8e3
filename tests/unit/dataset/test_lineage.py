"""Which models saw which rows, out of the events of the others, in whatever order they come."""

from datetime import UTC, datetime, timedelta

import pytest

from services.dataset.events import HANDLERS
from services.dataset.governance import lineage
from sluice.dataset import v1 as dataset
from sluice.evaluator import v1 as evaluator
from sluice.events import v1 as events
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer

ROWS = "projects/p/datasets/d/versions/1"
START = datetime(2026, 1, 1, tzinfo=UTC)


def model(name):
    return f"projects/p/models/{name.replace('@', '/versions/')}"


def created(name, base="", rows=ROWS, digest="sha256:a", source="", **read):
    version = registry.ModelVersion(name=model(name), base_model_version=model(base) if base else "")
    version.lineage.CopyFrom(registry.Lineage(training_job="j", dataset_version=rows, dataset_digest=digest))
    version.lineage.source_model_version = model(source) if source else ""
    version.lineage.read_model_versions.update({role: model(each) for role, each in read.items()})
    return registry.ModelVersionCreated(model_version=version)


@pytest.fixture
def happen(database):
    async def take(*messages):
        for number, message in enumerate(messages):
            event = events.Event()
            event.time.FromDatetime(START + timedelta(seconds=number))
            await database.transact(lambda unit, m=message, e=event: HANDLERS[type(m)](unit, e, m))

    return take


async def uses(database, of="projects/p/datasets/d"):
    async with database.read() as session:
        return [(use.model_version.split("/", 3)[3], use.seen) for use in await lineage.uses_of(session, of)]


async def test_models_that_start_from_one_that_saw_rows_saw_them_too(database, happen):
    chain = [created("c@1", "b@1", rows=""), created("b@1", "a@1", rows="projects/p/datasets/e/versions/1")]
    await happen(*chain, created("a@1"), created("a@1"), created("x@1", rows=""))
    trained, inherited = dataset.SEEN_TRAINED, dataset.SEEN_INHERITED
    assert sorted(await uses(database)) == [
        ("a/versions/1", trained),
        ("b/versions/1", inherited),
        ("c/versions/1", inherited),
    ]
    assert await uses(database, ROWS) == await uses(database)
    assert await uses(database, "projects/p/datasets/d/versions/2") == []


async def test_who_learned_from_a_model_that_saw_rows_saw_them_through_it(database, happen):
    await happen(
        created("exported@1", source="student@1", rows=""),
        created("student@1", "b@1", rows="", teacher="t@1"),
        created("graded@1", "b@1", rows="", reward="t@1", judge="student@1"),
        created("child@1", "graded@1", rows=""),
        created("t@1", "a@1", rows=""),  # the teacher starts from a model that was trained on them
        created("a@1"),
        created("b@1", rows="projects/p/datasets/e/versions/1"),
    )
    async with database.read() as session:
        found = {
            (use.model_version.split("/", 3)[3], use.seen, use.source.split("/", 3)[-1])
            for use in await lineage.uses_of(session, "projects/p/datasets/d")
        }
    inherited, taught = dataset.SEEN_INHERITED, dataset.SEEN_TAUGHT
    assert found == {
        ("a/versions/1", dataset.SEEN_TRAINED, "j"),
        ("t/versions/1", inherited, "a/versions/1"),
        ("student/versions/1", taught, "t/versions/1"),
        ("exported/versions/1", inherited, "student/versions/1"),
        ("graded/versions/1", taught, "t/versions/1"),
        ("graded/versions/1", taught, "student/versions/1"),
        ("child/versions/1", inherited, "graded/versions/1"),
    }


async def test_models_that_learn_from_each_other_are_each_told_once(database, happen):
    await happen(created("x@1", rows="", judge="y@1"), created("y@1", rows="", judge="x@1"), created("a@1"))
    assert await uses(database) == [("a/versions/1", dataset.SEEN_TRAINED)]
    await happen(created("x@1", rows="", judge="y@1", teacher="a@1"))
    assert sorted(each for each, _ in await uses(database)) == [
        "a/versions/1",
        "x/versions/1",
        "x/versions/1",
        "y/versions/1",
    ]


async def test_who_was_judged_by_rows_is_no_teacher_of_others(database, happen):
    judged = evaluator.EvaluationCompleted(evaluation="e", model_version=model("a@1"), dataset_version=ROWS)
    await happen(created("b@1", "a@1", rows=""), judged, evaluator.EvaluationCompleted(evaluation="of before"))
    assert await uses(database) == [("a/versions/1", dataset.SEEN_EVALUATED)]


async def test_a_job_wants_its_rows_until_it_is_over(database, happen):
    async def wanted():
        async with database.read() as session:
            return await lineage.wanted_by_jobs(session, [ROWS])

    await happen(*(trainer.TrainingJobCreated(training_job=name, dataset_version=ROWS) for name in ("1", "2")))
    await happen(trainer.TrainingJobCreated(training_job="of an earlier release"))
    assert await wanted() == {ROWS}
    await happen(trainer.TrainingJobSucceeded(training_job="1"), trainer.TrainingJobFailed(training_job="2"))
    assert await wanted() == set()
