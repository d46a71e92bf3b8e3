"""Commands on a real database in memory: effects, events, fences."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlmodel import SQLModel, col, select
from training_jobs import S, sft_spec

import services.trainer
from kit.rpc.errors import Denied, Invalid, Stale, StateConflict
from kit.store import Database, OutboxRow, check
from services.trainer import commands, store
from services.trainer.inputs import Admit, Resolve
from services.trainer.planning import Planning
from services.trainer.servicer import AttemptServicer, TrainingJobServicer
from sluice.errors import v1 as errors
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types
from tests.migrated import migrated

RESULT = trainer.TrainingResult(dataset_digest="sha256:" + "0" * 64)


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    opened = await migrated(services.trainer)
    yield opened
    await opened.close()


async def resolve(spec: trainer.TrainingJobSpec) -> trainer.TrainingJobSpec:
    return spec


async def admit(spec: trainer.TrainingJobSpec) -> None:
    pass


def serving(
    database: Database, resolve: Resolve = resolve, jobs: Path = Path(), admit: Admit = admit
) -> TrainingJobServicer:
    planning = Planning(resolve, None, None, None)  # type: ignore[arg-type]  # nothing is planned here
    return TrainingJobServicer(database, resolve, admit, jobs, planning, None)  # type: ignore[arg-type]  # nor read


async def create(database: Database, request_id: str = "", **fields: object) -> str:
    job = trainer.TrainingJob(spec=sft_spec(**fields))
    request = trainer.CreateTrainingJobRequest(parent="projects/p", training_job=job, request_id=request_id)
    answer = await serving(database).CreateTrainingJob(request, None)
    return answer.training_job.name


async def queued(database: Database, **fields: object) -> str:
    name = await create(database, **fields)
    await database.transact(lambda unit: commands.validate(unit, name))
    await database.transact(lambda unit: commands.queue(unit, name, sft_spec(**fields)))
    return name


async def claimed(database: Database, **fields: object) -> str:
    name = await queued(database, **fields)
    assert await database.transact(lambda unit: commands.claim(unit, "host", 1))
    return name


async def get(database: Database, name: str) -> trainer.TrainingJob:
    async with database.read() as session:
        return await store.JOBS.get(session, name)


async def events(database: Database) -> list[tuple[str, dict[str, object]]]:
    async with database.read() as session:
        rows = await session.exec(select(OutboxRow).order_by(col(OutboxRow.sequence)))
        return [(row.type.removeprefix("sluice.trainer.v1.training_job."), json.loads(row.data_json)) for row in rows]


async def report(database: Database, name: str, epoch: int = 1, **fields: object) -> trainer.ReportAttemptResponse:
    request = trainer.ReportAttemptRequest(training_job=name, epoch=epoch, **fields)
    return await AttemptServicer(database).ReportAttempt(request, None)


async def test_the_migrations_make_what_the_models_say(database: Database) -> None:
    assert await check(database, SQLModel.metadata) == []


async def test_each_state_is_told_once_in_order(database: Database) -> None:
    name = await claimed(database)
    await report(database, name, state=S["RUNNING"])
    await report(database, name, state=S["RUNNING"], progress=types.Progress(done=1))
    await report(database, name, outcome=trainer.ATTEMPT_OUTCOME_SUCCEEDED, result=RESULT)
    told = await events(database)
    assert [kind for kind, _ in told] == ["created", *["changed"] * 4, "succeeded"]
    states = [data["state"] for kind, data in told if kind == "changed"]
    assert states == [f"JOB_STATE_{word}" for word in ("VALIDATING", "QUEUED", "PREPARING", "RUNNING")]
    assert told[-1][1]["result"] == {"dataset_digest": RESULT.dataset_digest}
    assert [entry.state for entry in (await get(database, name)).history] == [1, 2, 3, 4, 5, S["SUCCEEDED"]]


async def reproduce(database: Database, name: str, parent: str = "projects/p", **fields: object) -> trainer.TrainingJob:
    job = trainer.TrainingJob(spec=sft_spec(**fields), reproduces=name)
    request = trainer.CreateTrainingJobRequest(parent=parent, training_job=job)
    return (await serving(database).CreateTrainingJob(request, None)).training_job


async def test_a_job_that_succeeded_is_run_again_as_it_was_and_says_so(database: Database) -> None:
    name = await claimed(database)
    with pytest.raises(StateConflict, match="is PREPARING; only one that is SUCCEEDED can be reproduced"):
        await reproduce(database, name)
    await report(database, name, outcome=trainer.ATTEMPT_OUTCOME_SUCCEEDED, result=RESULT)
    with pytest.raises(Invalid, match="spec is not that of"):
        await reproduce(database, name, seed=9)
    with pytest.raises(Invalid, match="reproduces is not in `projects/p`"):
        await reproduce(database, name.replace("projects/p", "projects/q"))
    again = (await reproduce(database, name)).name
    await database.transact(lambda unit: commands.validate(unit, again))
    await database.transact(lambda unit: commands.queue(unit, again, sft_spec()))
    assert await database.transact(lambda unit: commands.claim(unit, "host", 1))
    await report(database, again, outcome=trainer.ATTEMPT_OUTCOME_SUCCEEDED, result=RESULT)
    found = await get(database, again)
    assert (found.reproduces, found.spec) == (name, (await get(database, name)).spec)
    ends = [data.get("reproduces", "") for kind, data in await events(database) if kind == "succeeded"]
    assert ends == ["", name]


async def test_lists_leave_out_the_packages_and_steps_are_read_from_the_attempts(
    database: Database, tmp_path: Path
) -> None:
    name = await claimed(database)
    result = trainer.TrainingResult(packages=["torch==1"], settings={"learning_rate": "0.1"})
    await report(database, name, outcome=trainer.ATTEMPT_OUTCOME_SUCCEEDED, result=result)
    servicer = serving(database, jobs=tmp_path)
    listed = await servicer.ListTrainingJobs(trainer.ListTrainingJobsRequest(parent="projects/p"), None)
    assert listed.training_jobs[0].result == trainer.TrainingResult(settings={"learning_rate": "0.1"})
    assert (await get(database, name)).result.packages == ["torch==1"]
    folder = tmp_path / name.rsplit("/", 1)[1] / "1"
    folder.mkdir(parents=True)
    lines = [{"kind": "phase", "message": "training", "step": 0}]
    lines += [{"kind": "step", "time": 1, "step": at, "total_steps": 300, "loss": 1 / at} for at in range(1, 301)]
    lines += [{"kind": "eval", "step": 300, "loss": 0.5}]
    (folder / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "st')
    asked = servicer.ReadTrainingJobSteps(trainer.ReadTrainingJobStepsRequest(name=name), None)
    answers = [answer async for answer in asked]
    steps = [step for answer in answers for step in answer.steps]
    assert max(answer.ByteSize() for answer in answers) < 64 * 1024
    assert [step.step for step in steps] == [*range(1, 301), 300]
    assert steps[3] == trainer.TrainingStep(epoch=1, step=4, figures={"loss": 0.25}, time=Timestamp(seconds=1))
    assert steps[-1] == trainer.TrainingStep(epoch=1, step=300, evaluation=True, figures={"loss": 0.5})


#: What a recipe of anybody's may write, and no step of which can be told.
ODD = (b'{"kind": "step", "step": 9223372036854775808}', b'{"kind": "step", "step": -1}', b'{"kind": "step"}', b"[]")
ODD += (b"\xff", b"no json", b'{"kind": "step", "step": 1, "note": "%b"}' % (b"x" * 2**20), b"[" * 100_000)
ODD += (b'{"kind": "step", "step": 1, "loss": ' + b"9" * 5000 + b"}",)


async def test_odd_figures_are_left_out_and_what_follows_is_read(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = await claimed(database)
    folder = tmp_path / name.rsplit("/", 1)[1] / "1"
    folder.mkdir(parents=True)
    line = (
        b'{"kind": "step", "step": 7, "time": NaN, "loss": 1.5, "huge": 1' + b"0" * 400 + b', "\\ud800": 1, "n": NaN}'
    )
    (folder / "progress.jsonl").write_bytes(b"\n".join([*ODD, line, b""]))
    asked = serving(database, jobs=tmp_path).ReadTrainingJobSteps(trainer.ReadTrainingJobStepsRequest(name=name), None)
    steps = [step async for answer in asked for step in answer.steps]
    assert steps == [trainer.TrainingStep(epoch=1, step=7, figures={"loss": 1.5})]
    (record,) = caplog.records
    assert vars(record)["fields"] == {"training_job": name, "epoch": 1, "lines": len(ODD)}


async def test_many_figures_come_in_messages_that_can_be_sent(database: Database, tmp_path: Path) -> None:
    name = await claimed(database)
    folder = tmp_path / name.rsplit("/", 1)[1] / "1"
    folder.mkdir(parents=True)
    figures = {str(number): number for number in range(50_000)}
    (folder / "progress.jsonl").write_text((json.dumps({"kind": "step", "step": 1, **figures}) + "\n") * 4)
    asked = serving(database, jobs=tmp_path).ReadTrainingJobSteps(trainer.ReadTrainingJobStepsRequest(name=name), None)
    assert max([answer.ByteSize() async for answer in asked]) < 4 * 2**20


@pytest.mark.parametrize("verb", ["Retry", "Resume"])
async def test_a_job_goes_on_only_for_who_may_submit_it(database: Database, verb: str) -> None:
    async def nobody(spec: trainer.TrainingJobSpec) -> None:
        raise Denied(f"nobody may submit jobs of task type `{spec.task_type}`")

    name = await claimed(database)
    if verb == "Retry":
        failure = types.Failure(message="it failed")
        await report(database, name, outcome=trainer.ATTEMPT_OUTCOME_FAILED, failure=failure)
    else:
        await report(database, name, state=S["RUNNING"])
        await serving(database).PauseTrainingJob(trainer.PauseTrainingJobRequest(name=name), None)
        await report(database, name, outcome=trainer.ATTEMPT_OUTCOME_PAUSED)
    request = getattr(trainer, f"{verb}TrainingJobRequest")(name=name)
    before = (await get(database, name)).state
    with pytest.raises(Denied, match="nobody may submit"):
        await getattr(serving(database, admit=nobody), f"{verb}TrainingJob")(request, None)
    assert (await get(database, name)).state == before
    await getattr(serving(database), f"{verb}TrainingJob")(request, None)
    assert (await get(database, name)).state == S["QUEUED"]


async def test_a_repeated_create_makes_one_job(database: Database) -> None:
    request_id = "7f1f0f3e-0000-4000-8000-000000000001"
    assert await create(database, request_id) == await create(database, request_id)
    with pytest.raises(Invalid) as raised:
        await create(database, request_id, seed=9)
    assert raised.value.reason == errors.ERROR_REASON_REQUEST_ID_REUSED


async def test_a_repeated_create_gets_its_answer_though_the_dataset_is_gone(database: Database) -> None:
    async def gone(spec: trainer.TrainingJobSpec) -> trainer.TrainingJobSpec:
        raise Invalid("gone")

    request_id = "7f1f0f3e-0000-4000-8000-000000000002"
    name = await create(database, request_id)
    job = trainer.TrainingJob(spec=sft_spec())
    request = trainer.CreateTrainingJobRequest(parent="projects/p", training_job=job, request_id=request_id)
    servicer = serving(database, gone)
    assert (await servicer.CreateTrainingJob(request, None)).training_job.name == name
    request.ClearField("request_id")
    with pytest.raises(Invalid, match="gone"):
        await servicer.CreateTrainingJob(request, None)


async def test_no_peer_is_asked_for_what_is_of_another_project(database: Database) -> None:
    async def asked(spec: trainer.TrainingJobSpec) -> trainer.TrainingJobSpec:
        raise AssertionError("a peer was asked")

    job = trainer.TrainingJob(spec=sft_spec(dataset_version="projects/q/datasets/d/versions/1"))
    request = trainer.CreateTrainingJobRequest(parent="projects/p", training_job=job)
    with pytest.raises(Invalid, match=r"spec\.dataset_version is not in `projects/p`"):
        await serving(database, asked).CreateTrainingJob(request, None)


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("dataset_version", "projects/q/datasets/d/versions/1"),
        ("base_model_version", "projects/q/models/b/versions/1"),
        ("base_model_version", "projects/pp/models/b/versions/1"),
    ],
)
async def test_a_job_reads_nothing_of_another_project(database: Database, field: str, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        await create(database, **{field: name})
    assert refused.value.violations[0][0] == f"training_job.spec.{field}"


async def test_commands_reach_the_agent_by_its_reports(database: Database) -> None:
    name = await claimed(database)
    assert (await report(database, name, state=S["RUNNING"])).command == trainer.ATTEMPT_COMMAND_UNSPECIFIED
    await database.transact(lambda unit: commands.pause(unit, trainer.PauseTrainingJobRequest(name=name)))
    assert (await report(database, name)).command == trainer.ATTEMPT_COMMAND_PAUSE
    await database.transact(lambda unit: commands.cancel(unit, trainer.CancelTrainingJobRequest(name=name)))
    assert (await report(database, name)).command == trainer.ATTEMPT_COMMAND_CANCEL
    await report(database, name, outcome=trainer.ATTEMPT_OUTCOME_CANCELLED)
    assert (await get(database, name)).state == S["CANCELLED"]
    assert (await events(database))[-1] == ("failed", {"training_job": name, "state": "JOB_STATE_CANCELLED"})


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_cancel_races_complete_and_one_of_them_ends_the_job(database: Database, cancel_first: bool) -> None:
    name = await claimed(database)
    await report(database, name, state=S["RUNNING"])
    cancel = database.transact(lambda unit: commands.cancel(unit, trainer.CancelTrainingJobRequest(name=name)))
    complete = report(database, name, outcome=trainer.ATTEMPT_OUTCOME_SUCCEEDED, result=RESULT)
    both = (cancel, complete) if cancel_first else (complete, cancel)
    answers = await asyncio.gather(*both, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(error, StateConflict) for error in refused)
    job = await get(database, name)
    assert job.state == S["SUCCEEDED"]
    ends = [kind for kind, _ in await events(database) if kind in ("succeeded", "failed")]
    assert ends == ["succeeded"]


async def test_a_stale_epoch_is_refused_and_changes_nothing(database: Database) -> None:
    name = await claimed(database)
    await database.transact(lambda unit: commands.lose(unit, name, 1, "gone"))
    await database.transact(lambda unit: commands.claim(unit, "host", 1))
    before = await get(database, name)
    with pytest.raises(StateConflict) as raised:
        await report(database, name, epoch=1, outcome=trainer.ATTEMPT_OUTCOME_SUCCEEDED, result=RESULT)
    assert raised.value.reason == errors.ERROR_REASON_STALE_EPOCH
    assert await get(database, name) == before


async def test_an_attempt_is_lost_once(database: Database) -> None:
    name = await claimed(database)
    for _ in range(2):
        await database.transact(lambda unit: commands.lose(unit, name, 1, "gone"))
    job = await get(database, name)
    assert (job.state, len(job.attempts), job.attempts[0].outcome) == (S["QUEUED"], 1, "lost")


async def test_no_more_jobs_run_than_may_and_the_oldest_goes_first(database: Database) -> None:
    first, second = await queued(database), await queued(database)
    assert await database.transact(lambda unit: commands.claim(unit, "host", 1))
    assert not await database.transact(lambda unit: commands.claim(unit, "host", 1))
    assert await database.transact(lambda unit: commands.claim(unit, "host", 2))
    assert not await database.transact(lambda unit: commands.claim(unit, "host", 9))
    assert [(await get(database, name)).state for name in (first, second)] == [S["PREPARING"]] * 2


async def test_a_job_whose_last_agent_is_still_there_waits(database: Database) -> None:
    name = await claimed(database)
    await database.transact(lambda unit: store.set_handle(unit, name, 1, "pid 1"))
    await database.transact(lambda unit: commands.lose(unit, name, 1, "gone"))
    assert not await database.transact(lambda unit: commands.claim(unit, "host", 1))
    await database.transact(lambda unit: store.set_handle(unit, name, 1, ""))
    assert await database.transact(lambda unit: commands.claim(unit, "host", 1))


async def test_an_etag_that_is_not_the_present_one_is_refused(database: Database) -> None:
    name = await create(database)
    with pytest.raises(Stale):
        await database.transact(
            lambda unit: commands.cancel(unit, trainer.CancelTrainingJobRequest(name=name, etag="99"))
        )
    assert (await get(database, name)).state == S["CREATED"]


async def test_jobs_are_found_by_state_and_type(database: Database) -> None:
    name = await create(database)
    await database.transact(lambda unit: commands.cancel(unit, trainer.CancelTrainingJobRequest(name=name)))
    await create(database)
    request = trainer.ListTrainingJobsRequest(parent="projects/p", filter='state = "CANCELLED" AND task_type = "sft"')
    found = await serving(database).ListTrainingJobs(request, None)
    assert [job.name for job in found.training_jobs] == [name]


async def test_watch_shows_the_job_until_it_is_over(database: Database) -> None:
    name = await create(database)
    states = []
    watched = serving(database).WatchTrainingJob(trainer.WatchTrainingJobRequest(name=name), None)
    async for snapshot in watched:
        states.append(snapshot.training_job.state)
        await database.transact(lambda unit: commands.cancel(unit, trainer.CancelTrainingJobRequest(name=name)))
    assert states == [S["CREATED"], S["CANCELLED"]]
