"""Training jobs for tests, in any state."""

from datetime import UTC, datetime, timedelta

from services.trainer import domain
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

NAME = "projects/p/trainingJobs/0199-a"
START = datetime(2026, 11, 21, tzinfo=UTC)
S = {name.removeprefix("JOB_STATE_"): number for name, number in types.JobState.items()}


def sft_spec(**fields: object) -> trainer.TrainingJobSpec:
    spec = trainer.TrainingJobSpec(
        task_type="sft",
        dataset_version="projects/p/datasets/d/versions/1",
        base_model_version="projects/p/models/base/versions/1",
        model="m",
        sft=trainer.SftRecipe(),
    )
    spec.MergeFrom(trainer.TrainingJobSpec(**fields))
    return spec


def new_job(**fields: object) -> trainer.TrainingJob:
    return domain.new_job(NAME, "", sft_spec(**fields), "keys/k", "", START)


PATHS = {
    "CREATED": "",
    "VALIDATING": "VALIDATING",
    "QUEUED": "VALIDATING QUEUED",
    "PREPARING": "VALIDATING QUEUED claim",
    "RUNNING": "VALIDATING QUEUED claim RUNNING",
    "PAUSING": "VALIDATING QUEUED claim RUNNING PAUSING",
    "PAUSED": "VALIDATING QUEUED claim RUNNING PAUSING PAUSED",
    "CANCELLING": "VALIDATING QUEUED claim RUNNING CANCELLING",
    "SUCCEEDED": "VALIDATING QUEUED claim RUNNING SUCCEEDED",
    "FAILED": "VALIDATING QUEUED claim RUNNING FAILED",
    "CANCELLED": "CANCELLED",
    "EXPIRED": "VALIDATING QUEUED EXPIRED",
}


def job_in(state: str, **fields: object) -> trainer.TrainingJob:
    """A job that went the shortest way to ``state``, a second a step; its attempt, if any, is number 1."""
    job, now = new_job(**fields), START
    for step in PATHS[state].split():
        now += timedelta(seconds=1)
        if step == "claim":
            domain.claim(job, "host", now)
        else:
            domain.enter(job, S[step], now)
    if job.attempts and job.state not in domain.LIVE:
        job.attempts[-1].end_time.FromDatetime(now)
    return job


def later(seconds: float = 60) -> datetime:
    return START + timedelta(seconds=seconds)
