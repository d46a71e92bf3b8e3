"""Jobs from submission to their end, with real agents: what they leave, what faults do to them."""

from __future__ import annotations

import asyncio
import json
import signal
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import trainer_parts
from trainer_parts import BASE, DATASET, ROWS, S, Trainer, World

from kit.rpc.errors import Fault, from_rpc_error
from kit.rpc.ports import free_port
from services.trainer import commands, domain
from sluice.client.reproduction import compare
from sluice.errors import v1 as errors
from sluice.trainer import v1 as trainer


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with trainer_parts.world(tmp_path, [free_port() for _ in range(3)]) as made:
        yield made


@pytest.fixture
async def running(world: World) -> AsyncIterator[Trainer]:
    async with trainer_parts.running(world.environ) as made:
        yield made


def decrypted(world: World, name: str) -> list[str]:
    """The files of a job that hold rows, weights or prompts."""
    kept = {"log.txt", "agent.log", "progress.jsonl", "result.json", "spec.json", "control.json", "lock"}
    files = [path for path in world.folder(name).rglob("*") if path.is_file() and path.name not in kept]
    return sorted(str(path.relative_to(world.folder(name))) for path in files)


async def gone(world: World, name: str) -> None:
    while world.processes(name):  # noqa: ASYNC110 - they are not our children and tell nobody
        await asyncio.sleep(0.02)


async def test_a_job_from_rows_to_stored_weights(world: World, running: Trainer) -> None:
    name = await running.create(seed=6, gate_policy="strict")
    job = await running.end_of(name)
    assert job.state == S["SUCCEEDED"], job.failure
    words = ["CREATED", "VALIDATING", "QUEUED", "PREPARING", "RUNNING", "SUCCEEDED"]
    assert [entry.state for entry in job.history] == [S[word] for word in words]
    assert (job.spec.dataset_version, job.spec.base_model_version) == (f"{DATASET}/3", f"{BASE}/1")
    assert (job.spec.gate_policy, job.spec.endpoint) == ("strict", "m")
    [file] = job.result.artifact.files
    weights = b"".join([piece async for piece in world.blobs.open("projects/p", file.digest)])
    assert weights == b"base weights" + ROWS["train"] + ROWS["validation"]
    parity = [piece async for piece in world.blobs.open("projects/p", job.result.parity.digest)]
    assert b"row content" in b"".join(parity)
    assert job.result.dataset_digest == "sha256:" + "3" * 64
    assert job.result.base_digest.startswith("sha256:")
    assert job.result.metrics["final_loss"] == 0.5
    assert (job.progress.done, job.progress.total) == (8, 8)
    await running.cleared(name)
    assert decrypted(world, name) == []
    assert not (world.folder(name) / "checkpoints").exists()
    assert stat.S_IMODE((world.folder(name) / "1").stat().st_mode) == 0o700
    assert world.processes(name) == {}


async def test_a_job_run_again_leaves_the_same_weights_and_names_the_first(world: World, running: Trainer) -> None:
    name = await running.create(seed=6)
    first = await running.end_of(name)
    assert (dict(first.result.settings), list(first.result.packages)) == ({"learning_rate": "0.1"}, ["torch==2"])
    job = trainer.TrainingJob(spec=first.spec, reproduces=name)
    request = trainer.CreateTrainingJobRequest(parent="projects/p", training_job=job)
    stored = {path for path in (world.settings.home / "blobs").rglob("*") if path.is_file()}
    again = await running.end_of((await running.jobs.CreateTrainingJob(request)).training_job.name)
    # Nothing is made of its outputs, so nobody would ever take them out of the store.
    assert {path for path in (world.settings.home / "blobs").rglob("*") if path.is_file()} == stored
    assert again.result.parity.digest != first.result.parity.digest
    assert (again.state, again.reproduces, again.spec) == (S["SUCCEEDED"], name, first.spec)
    taken = []
    for each in (first, again):
        asked = trainer.ReadTrainingJobStepsRequest(name=each.name)
        answers = [answer async for answer in running.jobs.ReadTrainingJobSteps(asked)]
        taken.append([step for answer in answers for step in answer.steps])
    found = compare(first, again, *taken)
    assert found.bit_identical and found.differences == ()
    assert (found.steps, found.largest) == (8, 0.0)


async def test_what_a_recipe_is_told_and_what_not(world: World, running: Trainer) -> None:
    name = await running.create(seed=0)
    await running.end_of(name)
    spec = json.loads((world.folder(name) / "1" / "spec.json").read_text())
    assert {key: spec[key] for key in ("job", "attempt", "task_type", "recipe", "seed")} == {
        "job": name.rsplit("/", 1)[1],
        "attempt": 1,
        "task_type": "sft",
        "recipe": "sft",
        "seed": 0,
    }
    assert spec["parameters"]["optimization"]["max_steps"] == 8
    asked = {"rank": 16, "alpha": 32.0, "dropout": 0.0, "target_modules": []}
    assert spec["parameters"]["lora"].items() >= asked.items()
    request = trainer.ReadTrainingJobLogsRequest(name=name, follow=True)
    pieces = [piece async for piece in running.jobs.ReadTrainingJobLogs(request)]
    text = "".join(piece.text for piece in pieces)
    assert {piece.epoch for piece in pieces} == {1}
    environ = text.split("environ ")[1]
    assert [word for word in environ.split("'") if word.startswith("SLUICE")] == ["SLUICE_ATTEMPT"]
    assert "TRACEPARENT" in environ
    for log in world.folder(name).rglob("*.log"):
        assert "secret row" not in log.read_text()


@pytest.mark.parametrize(
    ("seed", "reason", "words"),
    [
        (3, errors.ERROR_REASON_DIVERGED, "no longer a number"),
        (4, errors.ERROR_REASON_INTERNAL, "ended with status 7 and left no result"),
    ],
)
async def test_a_recipe_that_fails_says_why(world: World, running: Trainer, seed: int, reason: int, words: str) -> None:
    name = await running.create(seed=seed)
    job = await running.end_of(name)
    assert (job.state, job.failure.reason) == (S["FAILED"], reason)
    assert words in job.failure.message
    await running.cleared(name)
    assert decrypted(world, name) == []


@pytest.mark.parametrize("victim", ["recipe", "agent"])
async def test_kill_9_and_the_next_attempt_goes_on_from_the_checkpoint(
    world: World, running: Trainer, victim: str
) -> None:
    name = await running.create(seed=1)
    await running.at_step(name, 5)
    processes = world.processes(name)
    processes[victim].kill()
    job = await running.end_of(name)
    assert job.state == S["SUCCEEDED"], job.failure
    assert [(each.epoch, each.outcome, each.resumed_from_step) for each in job.attempts] == [
        (1, "lost", 0),
        (2, "succeeded", 5),
    ]
    for process in processes.values():
        process.wait(20)
    await running.cleared(name)
    assert decrypted(world, name) == []


async def test_a_worker_that_vanishes_too_often_fails_the_job_and_retry_goes_on(world: World, running: Trainer) -> None:
    name = await running.create(seed=2, max_attempts=2)
    for epoch in (1, 2):
        await running.until(name, lambda job, epoch=epoch: len(job.attempts) == epoch and job.state == S["RUNNING"])
        while "recipe" not in (processes := world.processes(name)):  # noqa: ASYNC110 - as in gone()
            await asyncio.sleep(0.02)
        processes["recipe"].kill()
    job = await running.end_of(name)
    assert (job.state, job.failure.reason) == (S["FAILED"], errors.ERROR_REASON_WORKER_LOST)
    await running.cleared(name)
    assert all(file.startswith("checkpoints/") for file in decrypted(world, name))
    await running.jobs.RetryTrainingJob(trainer.RetryTrainingJobRequest(name=name))
    job = await running.until(name, lambda job: len(job.attempts) == 3)
    assert not job.HasField("failure")


async def test_a_trainer_restart_leaves_the_agent_alone(world: World) -> None:
    async with trainer_parts.running(world.environ) as first:
        name = await first.create(seed=1)
        await first.at_step(name, 5)
        before = {key: process.pid for key, process in world.processes(name).items()}
    async with trainer_parts.running(world.environ) as second:
        await second.jobs.PauseTrainingJob(trainer.PauseTrainingJobRequest(name=name))
        job = await second.until(name, lambda job: job.state == S["PAUSED"])
        assert {"agent", "recipe"} == set(before)
        assert [(each.epoch, each.outcome) for each in job.attempts] == [(1, "paused")]


async def test_pause_and_resume(world: World, running: Trainer) -> None:
    name = await running.create(seed=1)
    await running.at_step(name, 5)
    await running.jobs.PauseTrainingJob(trainer.PauseTrainingJobRequest(name=name))
    await running.until(name, lambda job: job.state == S["PAUSED"])
    await running.cleared(name)
    assert all(file.startswith("checkpoints/") for file in decrypted(world, name))
    await running.jobs.ResumeTrainingJob(trainer.ResumeTrainingJobRequest(name=name))
    job = await running.end_of(name)
    assert (job.state, job.attempts[1].resumed_from_step) == (S["SUCCEEDED"], 5)


@pytest.mark.parametrize("seed", [2, 5])
async def test_cancel_also_of_a_recipe_that_hears_nothing(world: World, running: Trainer, seed: int) -> None:
    name = await running.create(seed=seed)
    await running.at_step(name, 5)
    await running.jobs.CancelTrainingJob(trainer.CancelTrainingJobRequest(name=name))
    assert (await running.end_of(name)).state == S["CANCELLED"]
    await running.cleared(name)
    assert decrypted(world, name) == []
    await gone(world, name)


async def test_cancel_while_inputs_are_staged(world: World, running: Trainer) -> None:
    world.datasets.open.clear()
    name = await running.create(seed=0)
    await running.until(name, lambda job: job.progress.phase == "staging")
    await running.jobs.CancelTrainingJob(trainer.CancelTrainingJobRequest(name=name))
    job = await running.end_of(name)
    assert (job.state, job.progress.phase) == (S["CANCELLED"], "staging")


async def test_an_attempt_that_was_given_up_stops_and_wipes(world: World, running: Trainer) -> None:
    name = await running.create(seed=2)
    await running.at_step(name, 5)
    processes = world.processes(name)
    await running.database.transact(lambda unit: commands.lose(unit, name, 1, "partitioned"))
    for process in processes.values():
        await asyncio.to_thread(process.wait, 10)
    job = await running.until(name, lambda job: len(job.attempts) == 2 and job.state == S["RUNNING"])
    assert job.attempts[0].outcome == "lost"


async def test_a_silent_agent_is_ended_before_the_next_begins(world: World, running: Trainer) -> None:
    name = await running.create(seed=1)
    await running.at_step(name, 5)
    processes = world.processes(name)
    processes["agent"].send_signal(signal.SIGSTOP)
    job = await running.until(name, lambda job: True)
    while domain.has_live_attempt(job, 1):  # its last report may be seen only after the clock has gone on
        running.skipped_s += 31.0
        await asyncio.sleep(0.05)
        job = await running.until(name, lambda job: True)
    job = await running.end_of(name)
    assert (job.state, job.attempts[0].outcome) == (S["SUCCEEDED"], "lost")
    assert not any(process.is_running() and process.status() != "zombie" for process in processes.values())


async def test_a_job_ends_at_its_time_limit(world: World, running: Trainer) -> None:
    request = trainer.TrainingJobSpec(seed=2)
    request.time_limit.FromSeconds(2)
    name = await running.create(seed=2, time_limit=request.time_limit)
    job = await running.end_of(name)
    assert (job.state, job.failure.reason) == (S["FAILED"], errors.ERROR_REASON_TIME_LIMIT)
    await gone(world, name)


async def test_rows_that_do_not_arrive_whole_fail_the_job(world: World, running: Trainer) -> None:
    world.datasets.version.split_rows["train"] = 5
    job = await running.end_of(await running.create(seed=0))
    assert (job.state, job.failure.reason) == (S["FAILED"], errors.ERROR_REASON_CORRUPT_BLOB)
    assert "has 2 rows in its split `train` and should have 5" in job.failure.message


REFUSED = [
    ({"dataset_version": f"{DATASET}/9"}, errors.ERROR_REASON_NOT_FOUND, "versions/9"),
    ({"task_type": "vision"}, errors.ERROR_REASON_NOT_FOUND, "vision"),
    ({"gate_policy": "stric"}, errors.ERROR_REASON_NOT_FOUND, "projects/p/gatePolicies/stric"),
    ({"base_model_version": f"{BASE}/2"}, errors.ERROR_REASON_INVALID_FIELD, "is an adapter"),
    (
        {"task_type": "pretrain", "pretrain": trainer.PretrainRecipe()},
        errors.ERROR_REASON_TASK_TYPE_MISMATCH,
        "has rows for `sft`",
    ),
]


@pytest.mark.parametrize(("spec", "reason", "words"), REFUSED)
async def test_a_spec_that_cannot_be_run_is_refused_at_once(
    running: Trainer, spec: dict[str, object], reason: int, words: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await running.create(**spec)
    fault: Fault = from_rpc_error(raised.value)
    assert fault.reason == reason
    assert words in fault.message
    assert not (await running.jobs.ListTrainingJobs(trainer.ListTrainingJobsRequest(parent="projects/p"))).training_jobs


@pytest.mark.parametrize("point", ["before_spawn", "after_spawn"])
async def test_a_trainer_that_dies_around_the_spawn_starts_one_agent(world: World, point: str) -> None:
    parts = [sys.executable, trainer_parts.__file__]
    root = str(Path(__file__).resolve().parents[2])
    environ = {**world.environ, "PYTHONPATH": root, "SLUICE_FAILPOINT": f"{point}:kill"}
    died = await asyncio.create_subprocess_exec(*parts, env=environ)
    client = trainer_parts.connect(world.settings.address("trainer"))
    async with client:
        stub = Trainer(world.settings, None, None, trainer.TrainingJobServiceStub(client))  # type: ignore[arg-type]
        await client.channel_ready()
        name = await stub.create(seed=1)
        assert await asyncio.wait_for(died.wait(), 20) == -signal.SIGKILL
    async with trainer_parts.running(world.environ) as second:
        await second.at_step(name, 5)
        agents = world.processes(name)
        assert set(agents) == {"agent", "recipe"}
        await second.jobs.PauseTrainingJob(trainer.PauseTrainingJobRequest(name=name))
        job = await second.until(name, lambda job: job.state == S["PAUSED"])
        assert len(job.attempts) == 1
