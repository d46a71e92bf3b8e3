"""The trainer's rows: jobs, and where the present attempt of each runs; it decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, or_, update
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.store import ResourceRow, Resources, Unit
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types


class JobRow(ResourceRow, table=True):
    """A training job."""

    __tablename__ = "trainer_job"
    task_type: str = Field(index=True)
    model: str = Field(index=True)
    creator: str = Field(index=True)
    dataset_version: str = Field(index=True)


class PlacementRow(SQLModel, table=True):
    """The present or last attempt of a job: what a backend may still hold processes or files of.

    It stays until the job is over for good and its files are gone.
    """

    __tablename__ = "trainer_placement"
    job: str = Field(primary_key=True)
    epoch: int
    #: What the backend calls the agent; empty before it was started and after it is gone.
    handle: str
    #: Reports so far. That the number grows is the sign of life: no clock is asked.
    reports: int


def _columns(job: trainer.TrainingJob) -> Mapping[str, Any]:
    return {
        "task_type": job.spec.task_type,
        "model": job.spec.model,
        "creator": job.creator,
        "dataset_version": job.spec.dataset_version,
    }


#: States in which a job has no attempt but may have another.
IDLE = (types.JOB_STATE_QUEUED, types.JOB_STATE_PAUSED, types.JOB_STATE_FAILED)
JOBS = Resources(JobRow, trainer.TrainingJob, columns=_columns, enums={"state": types.JobState})


async def occupied(session: AsyncSession) -> set[str]:
    """The jobs of which a backend still holds an agent."""
    return set(await session.exec(select(PlacementRow.job).where(col(PlacementRow.handle) != "")))


async def busy_placements(session: AsyncSession) -> list[tuple[PlacementRow, trainer.TrainingJob]]:
    """Placements that something is to be done about, with their jobs: all but those of jobs that wait or failed."""
    query = select(PlacementRow).join(JobRow, col(JobRow.name) == col(PlacementRow.job))
    query = query.where(or_(col(PlacementRow.handle) != "", col(JobRow.state).not_in(IDLE)))
    found = (await session.exec(query.order_by(col(PlacementRow.job)))).all()
    return [(placement, await JOBS.get(session, placement.job)) for placement in found]


async def place(unit: Unit, job: str, epoch: int) -> None:
    """Records that attempt ``epoch`` of ``job`` is to be started."""
    await unit.session.merge(PlacementRow(job=job, epoch=epoch, handle="", reports=0))
    await unit.session.flush()


async def set_handle(unit: Unit, job: str, epoch: int, handle: str) -> None:
    """Records what the backend calls the attempt; nothing happens when a later one took its place."""
    query = update(PlacementRow).where(col(PlacementRow.job) == job, col(PlacementRow.epoch) == epoch)
    await unit.session.exec(query.values(handle=handle))


async def count_report(unit: Unit, job: str, epoch: int) -> None:
    """Records a sign of life."""
    query = update(PlacementRow).where(col(PlacementRow.job) == job, col(PlacementRow.epoch) == epoch)
    await unit.session.exec(query.values(reports=PlacementRow.reports + 1))


async def unplace(unit: Unit, job: str, epoch: int) -> None:
    """Forgets a placement of which nothing is left."""
    query = delete(PlacementRow).where(col(PlacementRow.job) == job, col(PlacementRow.epoch) == epoch)
    await unit.session.exec(query)
