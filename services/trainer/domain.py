"""What a training job does when it is asked, reported on or left alone; pure, time is an argument."""

from __future__ import annotations

from datetime import datetime, timedelta

from kit.rpc.errors import Invalid, NotFound, StateConflict
from sluice.errors import v1 as errors
from sluice.lifecycle import JOB, can, is_over
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

DEFAULT_ATTEMPTS = 3
DEFAULT_TIME_LIMIT = timedelta(days=7)
#: States in which an attempt of the job is on its way.
LIVE = frozenset(
    {types.JOB_STATE_PREPARING, types.JOB_STATE_RUNNING, types.JOB_STATE_PAUSING, types.JOB_STATE_CANCELLING}
)
NEW = frozenset({types.JOB_STATE_CREATED, types.JOB_STATE_VALIDATING})
WAITING = frozenset({types.JOB_STATE_QUEUED, types.JOB_STATE_PAUSED})
COMMANDS = {
    types.JOB_STATE_PAUSING: trainer.ATTEMPT_COMMAND_PAUSE,
    types.JOB_STATE_CANCELLING: trainer.ATTEMPT_COMMAND_CANCEL,
}
OUTCOMES = {
    trainer.ATTEMPT_OUTCOME_SUCCEEDED: "succeeded",
    trainer.ATTEMPT_OUTCOME_PAUSED: "paused",
    trainer.ATTEMPT_OUTCOME_CANCELLED: "cancelled",
    trainer.ATTEMPT_OUTCOME_FAILED: "failed",
    trainer.ATTEMPT_OUTCOME_LOST: "lost",
}


class StaleEpoch(StateConflict):
    """A report of an attempt that is no longer the job's."""

    default_reason = errors.ERROR_REASON_STALE_EPOCH


def new_job(
    name: str, display_name: str, spec: trainer.TrainingJobSpec, creator: str, traceparent: str, now: datetime
) -> trainer.TrainingJob:
    """A job in CREATED."""
    job = trainer.TrainingJob(name=name, spec=spec, creator=creator, traceparent=traceparent)
    job.display_name = display_name or spec.model
    _record(job, types.JOB_STATE_CREATED, now, "")
    return job


def enter(job: trainer.TrainingJob, state: types.JobState, now: datetime, note: str = "") -> None:
    """Moves the job on. Raises StateConflict (ILLEGAL_TRANSITION) where the life cycle has no such step."""
    if not can(JOB, job.state, state):
        over = "; it is over, and nothing is to be done" if is_over(JOB, job.state) else ""
        raise StateConflict(
            f"training job `{job.name}` is {_word(job.state)}, from which it cannot become {_word(state)}{over}",
            resource=("TrainingJob", job.name),
        )
    _record(job, state, now, note)


def _record(job: trainer.TrainingJob, state: types.JobState, now: datetime, note: str) -> None:
    job.state = state
    job.history.add(state=state, note=note).time.FromDatetime(now)


def _word(state: int) -> str:
    return types.JobState.Name(state).removeprefix("JOB_STATE_")


def file_of(job: trainer.TrainingJob, path: str, offset: int) -> types.ArtifactFile:
    """A file that the job left. Raises NotFound when there is none of that path, Invalid when it ends before
    ``offset``.
    """
    found = next((file for file in job.result.artifact.files if file.path == path), None)
    if found is None:
        raise NotFound(f"`{job.name}` has left no file `{path}`; its result names those it has, once it has succeeded")
    if offset > found.size_bytes:
        raise Invalid(
            f"`{path}` has {found.size_bytes} bytes, so none at {offset}; begin at 0",
            violations=[("offset", "is beyond the end of the file")],
        )
    return found


# What people ask for.


def cancel(job: trainer.TrainingJob, now: datetime) -> None:
    """Cancels a job that waits, asks one that is on its way to stop; nothing where that was asked before."""
    if job.state in (types.JOB_STATE_CANCELLING, types.JOB_STATE_CANCELLED):
        return
    enter(job, types.JOB_STATE_CANCELLING if job.state in LIVE else types.JOB_STATE_CANCELLED, now)


def pause(job: trainer.TrainingJob, now: datetime) -> None:
    """Asks a running job to save a checkpoint and stop; nothing where that was asked before."""
    if job.state not in (types.JOB_STATE_PAUSING, types.JOB_STATE_PAUSED):
        enter(job, types.JOB_STATE_PAUSING, now)


def resume(job: trainer.TrainingJob, now: datetime) -> None:
    """Queues a paused job again. Raises StateConflict for one that is not paused."""
    _queue_again(job, types.JOB_STATE_PAUSED, now, "resumed")


def retry(job: trainer.TrainingJob, now: datetime) -> None:
    """Queues a failed job again; its attempts are counted anew. Raises StateConflict for one that has not failed."""
    _queue_again(job, types.JOB_STATE_FAILED, now, "retried")
    job.ClearField("failure")


def _queue_again(job: trainer.TrainingJob, needed: int, now: datetime, note: str) -> None:
    if job.state != needed:
        raise StateConflict(
            f"training job `{job.name}` is {_word(job.state)}; only one that is {_word(needed)} can be {note}",
            resource=("TrainingJob", job.name),
        )
    enter(job, types.JOB_STATE_QUEUED, now, note)


# What attempts do to it.


def claim(job: trainer.TrainingJob, host: str, now: datetime) -> int:
    """Begins the next attempt and returns its epoch."""
    enter(job, types.JOB_STATE_PREPARING, now)
    epoch = current_epoch(job) + 1
    job.attempts.add(epoch=epoch, host=host).start_time.FromDatetime(now)
    return epoch


def current_epoch(job: trainer.TrainingJob) -> int:
    """The epoch of the present or last attempt; 0 before the first."""
    return job.attempts[-1].epoch if job.attempts else 0


def has_live_attempt(job: trainer.TrainingJob, epoch: int) -> bool:
    """Whether attempt ``epoch`` is the one that runs."""
    return job.state in LIVE and current_epoch(job) == epoch


def report(job: trainer.TrainingJob, told: trainer.ReportAttemptRequest, now: datetime) -> None:
    """Takes in what an agent says. A last report that comes again changes nothing.

    Raises StaleEpoch for an attempt that is not the job's present one or has ended otherwise, Invalid for a
    success without a result.
    """
    attempt = job.attempts[-1] if current_epoch(job) == told.epoch else None
    if attempt is not None and attempt.HasField("end_time") and attempt.outcome == OUTCOMES.get(told.outcome):
        return
    if attempt is None or not has_live_attempt(job, told.epoch):
        raise StaleEpoch(
            f"attempt {told.epoch} of `{job.name}` is over; stop it and report no more",
            resource=("TrainingJob", job.name),
            metadata={"epoch": str(told.epoch), "current_epoch": str(current_epoch(job))},
        )
    if told.HasField("progress"):
        job.progress.CopyFrom(told.progress)
        job.progress.time.FromDatetime(now)
    attempt.resumed_from_step = told.resumed_from_step or attempt.resumed_from_step
    if told.state == types.JOB_STATE_RUNNING and job.state == types.JOB_STATE_PREPARING and not told.outcome:
        enter(job, types.JOB_STATE_RUNNING, now)
    if told.outcome:
        _end(job, told, now)


def _end(job: trainer.TrainingJob, told: trainer.ReportAttemptRequest, now: datetime) -> None:
    if told.outcome == trainer.ATTEMPT_OUTCOME_SUCCEEDED:
        if not told.HasField("result"):
            raise Invalid("an attempt that succeeded reports its result", violations=[("result", "is missing")])
        job.result.CopyFrom(told.result)
        _close(job, "succeeded", now)
        enter(job, types.JOB_STATE_SUCCEEDED, now)
    elif told.outcome == trainer.ATTEMPT_OUTCOME_FAILED:
        _close(job, "failed", now)
        fail(job, told.failure, now)
    elif told.outcome == trainer.ATTEMPT_OUTCOME_PAUSED and job.state == types.JOB_STATE_PAUSING:
        _close(job, "paused", now)
        enter(job, types.JOB_STATE_PAUSED, now)
    else:  # killed, or stopped as asked, or stopped without having been asked, which is no better than killed
        lose(job, "the recipe was killed", now)


def lose(job: trainer.TrainingJob, note: str, now: datetime) -> None:
    """Ends the attempt without a result: the job is queued again, or fails when it may have no more attempts.

    A job that was asked to stop does so instead.
    """
    cancelling, pausing = job.state == types.JOB_STATE_CANCELLING, job.state == types.JOB_STATE_PAUSING
    _close(job, "cancelled" if cancelling else "lost", now)
    allowed = job.spec.max_attempts or DEFAULT_ATTEMPTS
    if cancelling:
        enter(job, types.JOB_STATE_CANCELLED, now)
    elif pausing:
        enter(job, types.JOB_STATE_PAUSED, now, note)
    elif _lost_attempts(job) >= allowed:
        message = (
            f"the worker vanished in {allowed} attempts, which is all the job allows; "
            "read its log, then retry it, or submit it with more max_attempts"
        )
        fail(job, types.Failure(reason=errors.ERROR_REASON_WORKER_LOST, message=message), now)
    else:
        enter(job, types.JOB_STATE_QUEUED, now, note)


def _lost_attempts(job: trainer.TrainingJob) -> int:
    """Lost attempts since the job was submitted or last retried; by the order of things, as clocks may step."""
    states = [entry.state for entry in job.history]
    since = max((at for at, state in enumerate(states) if state == types.JOB_STATE_FAILED), default=0)
    before = states[:since].count(types.JOB_STATE_PREPARING)
    return sum(attempt.outcome == "lost" for attempt in job.attempts[before:])


def fail(job: trainer.TrainingJob, failure: types.Failure, now: datetime) -> None:
    """Ends the job badly, with the attempt that may be on its way."""
    _close(job, "failed", now)
    job.failure.CopyFrom(failure)
    enter(job, types.JOB_STATE_FAILED, now, errors.ErrorReason.Name(failure.reason).removeprefix("ERROR_REASON_"))


def _close(job: trainer.TrainingJob, outcome: str, now: datetime) -> None:
    if job.attempts and not job.attempts[-1].HasField("end_time"):
        job.attempts[-1].end_time.FromDatetime(now)
        job.attempts[-1].outcome = outcome


# What time does to it.


def time_used(job: trainer.TrainingJob, now: datetime) -> timedelta:
    """How long its attempts have taken together."""
    used = timedelta()
    for attempt in job.attempts:
        end = attempt.end_time.ToDatetime(now.tzinfo) if attempt.HasField("end_time") else now
        used += max(end - attempt.start_time.ToDatetime(now.tzinfo), timedelta())
    return used


def time_limit_failure(job: trainer.TrainingJob, now: datetime) -> types.Failure | None:
    """The failure of a job that has run longer than it may; None while it may go on."""
    limit = job.spec.time_limit.ToTimedelta() if job.spec.HasField("time_limit") else DEFAULT_TIME_LIMIT
    if time_used(job, now) <= limit:
        return None
    limit_s = f"{limit.total_seconds():g} s"
    message = f"the job ran longer than its time_limit of {limit_s}; submit it with more time, or with fewer steps"
    return types.Failure(reason=errors.ERROR_REASON_TIME_LIMIT, message=message)


def waited_too_long(job: trainer.TrainingJob, limit: timedelta, now: datetime) -> bool:
    """Whether a job that waits, for a worker or for the services it asks, has done so longer than ``limit``."""
    return job.state in WAITING | NEW and _unchanged(job, now) > limit


def is_over_for_good(job: trainer.TrainingJob, limit: timedelta, now: datetime) -> bool:
    """Whether no attempt will need what the last one left.

    A failed job may be retried from its checkpoint, for as long as it could have waited; later from the start.
    """
    if job.state == types.JOB_STATE_FAILED:
        return _unchanged(job, now) > limit
    return is_over(JOB, job.state)


def _unchanged(job: trainer.TrainingJob, now: datetime) -> timedelta:
    """How long the job has been in its state."""
    return now - job.history[-1].time.ToDatetime(now.tzinfo)
