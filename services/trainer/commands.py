"""What can be done to training jobs: one function an intent, inside a unit that the caller opened."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable
from datetime import datetime, timedelta

from google.protobuf.message import Message

from kit.rpc.call import current_call
from kit.rpc.errors import Invalid
from kit.rpc.names import project_of, uuid7
from kit.store import Unit
from kit.telemetry import current_traceparent, with_traceparent
from services.trainer import domain, store
from services.trainer.spec import check_project, check_repeats
from sluice.lifecycle import JOB, is_over
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

Act = Callable[[trainer.TrainingJob, datetime], object]
#: Whether the caller may set the job going again: its ``result`` raises what is in the way.
Admitted = Future[None]


async def create(
    unit: Unit, request: trainer.CreateTrainingJobRequest, spec: trainer.TrainingJobSpec
) -> trainer.CreateTrainingJobResponse:
    """Submits a job of a spec that was checked; one that reproduces another must have the same."""
    check_project(request.parent, spec)
    reproduced = request.training_job.reproduces
    if reproduced:
        if project_of(reproduced) != request.parent:
            what = f"is not in `{request.parent}`"
            raise Invalid(f"reproduces {what}; name a job there", violations=[("training_job.reproduces", what)])
        check_repeats(await store.JOBS.get(unit.session, reproduced), spec)
    job = domain.new_job(
        f"{request.parent}/trainingJobs/{uuid7()}",
        request.training_job.display_name,
        spec,
        current_call().principal.name,
        current_traceparent(),
        unit.now,
    )
    job.reproduces = reproduced
    await store.JOBS.insert(unit, job)
    unit.emit(_event(job, job.history[0]), job.name)
    return trainer.CreateTrainingJobResponse(training_job=job)


async def cancel(unit: Unit, request: trainer.CancelTrainingJobRequest) -> trainer.CancelTrainingJobResponse:
    """Stops a job, or asks it to stop."""
    job = await change(unit, request.name, domain.cancel, request.etag)
    return trainer.CancelTrainingJobResponse(training_job=job)


async def pause(unit: Unit, request: trainer.PauseTrainingJobRequest) -> trainer.PauseTrainingJobResponse:
    """Asks a running job to save a checkpoint and stop."""
    job = await change(unit, request.name, domain.pause, request.etag)
    return trainer.PauseTrainingJobResponse(training_job=job)


async def resume(
    unit: Unit, request: trainer.ResumeTrainingJobRequest, admitted: Admitted
) -> trainer.ResumeTrainingJobResponse:
    """Queues a paused job again, for who may submit it."""
    admitted.result()
    job = await change(unit, request.name, domain.resume, request.etag)
    return trainer.ResumeTrainingJobResponse(training_job=job)


async def retry(
    unit: Unit, request: trainer.RetryTrainingJobRequest, admitted: Admitted
) -> trainer.RetryTrainingJobResponse:
    """Queues a failed job again, for who may submit it."""
    admitted.result()
    job = await change(unit, request.name, domain.retry, request.etag)
    return trainer.RetryTrainingJobResponse(training_job=job)


async def report(unit: Unit, request: trainer.ReportAttemptRequest) -> trainer.ReportAttemptResponse:
    """Takes in what an agent says, and tells it what to do."""
    job = await change(unit, request.training_job, lambda job, now: domain.report(job, request, now))
    await store.count_report(unit, job.name, request.epoch)
    command = domain.COMMANDS.get(job.state, trainer.ATTEMPT_COMMAND_UNSPECIFIED)
    return trainer.ReportAttemptResponse(command=command)


async def note_download(unit: Unit, job: trainer.TrainingJob, file: types.ArtifactFile, offset: int) -> None:
    """Tells that whoever calls takes a file out of the suite."""
    told = trainer.TrainingJobDownloaded(training_job=job.name, path=file.path, digest=file.digest, offset=offset)
    unit.emit(told, job.name)


# What the supervisor does.


async def validate(unit: Unit, name: str) -> None:
    """Begins the checks of a job that is new."""
    await change(unit, name, _if(types.JOB_STATE_CREATED, types.JOB_STATE_VALIDATING))


async def queue(unit: Unit, name: str, spec: trainer.TrainingJobSpec) -> None:
    """Queues a job whose spec was checked and is now ``spec``."""

    def act(job: trainer.TrainingJob, now: datetime) -> None:
        if job.state == types.JOB_STATE_VALIDATING:
            job.spec.CopyFrom(spec)
            domain.enter(job, types.JOB_STATE_QUEUED, now)

    await change(unit, name, act)


async def refuse(unit: Unit, name: str, failure: types.Failure) -> None:
    """Fails a job whose spec was checked and cannot be run."""

    def act(job: trainer.TrainingJob, now: datetime) -> None:
        if job.state == types.JOB_STATE_VALIDATING:
            domain.fail(job, failure, now)

    await change(unit, name, act)


async def claim(unit: Unit, host: str, max_jobs: int) -> bool:
    """Begins an attempt of the job that has waited longest; False when none waits or no place is free.

    A job whose last attempt is not cleared away yet waits on: two attempts never run side by side.
    """
    job = await store.next_queued(unit.session)
    if job is None or await store.JOBS.count(unit.session, state=domain.LIVE) >= max_jobs:
        return False
    with with_traceparent(job.traceparent):
        await change(unit, job.name, lambda job, now: domain.claim(job, host, now))
    await store.place(unit, job.name, domain.current_epoch(job) + 1)
    return True


async def lose(unit: Unit, name: str, epoch: int, note: str) -> None:
    """Ends an attempt that vanished; nothing when it has ended meanwhile."""

    def act(job: trainer.TrainingJob, now: datetime) -> None:
        if domain.has_live_attempt(job, epoch):
            domain.lose(job, note, now)

    await change(unit, name, act)


async def time_out(unit: Unit, name: str, epoch: int) -> None:
    """Fails a job that ran longer than it may; nothing when the attempt has ended meanwhile."""

    def act(job: trainer.TrainingJob, now: datetime) -> None:
        failure = domain.time_limit_failure(job, now)
        if failure is not None and domain.has_live_attempt(job, epoch):
            domain.fail(job, failure, now)

    await change(unit, name, act)


async def expire(unit: Unit, name: str, limit: timedelta) -> None:
    """Gives up a job that has waited longer than ``limit``."""

    def act(job: trainer.TrainingJob, now: datetime) -> None:
        if domain.waited_too_long(job, limit, now):
            domain.enter(job, types.JOB_STATE_EXPIRED, now)

    await change(unit, name, act)


async def change(unit: Unit, name: str, act: Act, etag: str = "") -> trainer.TrainingJob:
    """Reads a job, acts on it, and where that changed it writes it, with an event for each state it entered."""
    job = await store.JOBS.get(unit.session, name)
    before = trainer.TrainingJob()
    before.CopyFrom(job)
    act(job, unit.now)
    if job == before:
        return job
    await store.JOBS.update(unit, job, etag)
    for entry in job.history[len(before.history) :]:
        unit.emit(_event(job, entry), job.name)
    return job


def _if(state: int, then: types.JobState) -> Act:
    return lambda job, now: domain.enter(job, then, now) if job.state == state else None


def _event(job: trainer.TrainingJob, entry: types.JobTransition) -> Message:
    """What is told of one entry of the job's history."""
    if entry.state == types.JOB_STATE_CREATED:
        spec = job.spec
        return trainer.TrainingJobCreated(
            training_job=job.name, task_type=spec.task_type, dataset_version=spec.dataset_version
        )
    if entry.state == types.JOB_STATE_SUCCEEDED:
        return trainer.TrainingJobSucceeded(
            training_job=job.name, spec=job.spec, result=job.result, creator=job.creator, reproduces=job.reproduces
        )
    if is_over(JOB, entry.state):
        failure = job.failure if job.HasField("failure") else None
        return trainer.TrainingJobFailed(training_job=job.name, state=entry.state, failure=failure)
    return trainer.TrainingJobChanged(training_job=job.name, state=entry.state, note=entry.note)
