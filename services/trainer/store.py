"""The trainer's rows: jobs, and where the present attempt of each runs; it decides nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, or_, update
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


#: Jobs that one look takes up; the others are taken up by the next.
AT_A_TIME = 100


async def oldest(
    session: AsyncSession, states: Collection[int], unchanged_since: datetime | None = None
) -> list[trainer.TrainingJob]:
    """The oldest jobs in these states, at most 100; with a time only those that were not changed since."""
    conditions: list[ColumnElement[bool]] = [col(JobRow.state).in_(states)]
    if unchanged_since is not None:
        conditions.append(col(JobRow.update_time) < unchanged_since)
    return (await JOBS.page(session, page_size=AT_A_TIME, where=conditions))[0]


async def next_queued(session: AsyncSession) -> trainer.TrainingJob | None:
    """The oldest job that waits for a worker and of which no backend still holds an agent."""
    held = select(PlacementRow.job).where(col(PlacementRow.handle) != "")
    waits = [col(JobRow.state) == types.JOB_STATE_QUEUED, col(JobRow.name).not_in(held)]
    found, _ = await JOBS.page(session, page_size=1, where=waits)
    return found[0] if found else None


async def busy_placements(
    session: AsyncSession, kept_since: datetime
) -> list[tuple[PlacementRow, trainer.TrainingJob]]:
    """Placements that something is to be done about, with their jobs.

    Nothing is to be done about those of jobs that wait or failed, but for one that failed before ``kept_since``.
    """
    query = select(PlacementRow).join(JobRow, col(JobRow.name) == col(PlacementRow.job))
    forgotten = and_(col(JobRow.state) == types.JOB_STATE_FAILED, col(JobRow.update_time) < kept_since)
    query = query.where(or_(col(PlacementRow.handle) != "", col(JobRow.state).not_in(IDLE), forgotten))
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
