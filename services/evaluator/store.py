"""The evaluator's rows: evaluations, and the batches of answers of those that are not over; it decides nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import UniqueConstraint, and_, delete, or_
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.rpc.names import id_of, project_of
from kit.store import ResourceRow, Resources, Unit
from sluice.evaluator import v1 as evaluator
from sluice.types import v1 as types


class EvaluationTable(ResourceRow, table=True):
    """An evaluation; at most one that counts for a version and a suite."""

    __tablename__ = "evaluator_evaluation"
    __table_args__ = (UniqueConstraint("model_version", "effective_suite"),)
    model_version: str = Field(index=True)
    automatic: bool = Field(index=True)
    #: The suite digest; null before it is known, and of one that was cancelled or expired, which counts no more.
    effective_suite: str | None = Field(default=None)


class BatchRow(SQLModel, table=True):
    """A blob with answers of one version; the answers themselves are nowhere in the database."""

    __tablename__ = "evaluator_batch"
    evaluation: str = Field(primary_key=True)
    model_version: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    digest: str


class DoomedRow(SQLModel, table=True):
    """A blob that goes unless an evaluation names it; not while ``evaluation`` is worked on, which may be about to."""

    __tablename__ = "evaluator_doomed"
    space: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    evaluation: str


GIVEN_UP = (types.JOB_STATE_CANCELLED, types.JOB_STATE_EXPIRED)


def _columns(evaluation: evaluator.Evaluation) -> Mapping[str, Any]:
    counts = evaluation.suite_digest and evaluation.state not in GIVEN_UP
    return {
        "model_version": evaluation.model_version,
        "automatic": evaluation.automatic,
        "effective_suite": evaluation.suite_digest if counts else None,
    }


EVALUATIONS = Resources(EvaluationTable, evaluator.Evaluation, _columns, enums={"state": types.JobState})


def space_of(evaluation: str) -> str:
    """Where the batches of an evaluation lie: a space of its own, so that dropping them takes nothing from others."""
    return f"{project_of(evaluation)}/uploads/evaluation-{id_of(evaluation)}"


async def effective(session: AsyncSession, model_version: str, suite_digest: str) -> evaluator.Evaluation | None:
    """The one evaluation that counts for a version under a suite, if there is one."""
    found = await EVALUATIONS.find(session, model_version=model_version, effective_suite=suite_digest)
    return found[0] if found else None


async def batches(session: AsyncSession, evaluation: str, model_version: str) -> list[BatchRow]:
    """The batches of answers of one version, in order."""
    query = select(BatchRow).where(col(BatchRow.evaluation) == evaluation, col(BatchRow.model_version) == model_version)
    return list((await session.exec(query.order_by(col(BatchRow.number)))).all())


async def leftovers(session: AsyncSession, kept_since: datetime) -> dict[str, set[str]]:
    """The digests of the batches that nobody will read again, by evaluation.

    A retry reads those of one that failed; one that failed before ``kept_since`` would begin anew.
    """
    state = col(EvaluationTable.state)
    forgotten = and_(state == types.JOB_STATE_FAILED, col(EvaluationTable.update_time) < kept_since)
    query = select(BatchRow).join(EvaluationTable, col(EvaluationTable.name) == col(BatchRow.evaluation))
    query = query.where(or_(state.in_([types.JOB_STATE_SUCCEEDED, *GIVEN_UP]), forgotten)).limit(1000)
    found: dict[str, set[str]] = {}
    for batch in (await session.exec(query)).all():
        found.setdefault(batch.evaluation, set()).add(batch.digest)
    return found


async def doom_batches(unit: Unit, evaluation: str) -> None:
    """Forgets all batches of an evaluation and lets their blobs go."""
    mine = col(BatchRow.evaluation) == evaluation
    for digest in set((await unit.session.exec(select(BatchRow.digest).where(mine))).all()):
        await doom(unit, space_of(evaluation), digest)
    await unit.session.exec(delete(BatchRow).where(mine))


async def doom(unit: Unit, space: str, digest: str, evaluation: str = "") -> None:
    """Puts a blob down that goes, when ``evaluation`` is worked on no more."""
    await unit.session.merge(DoomedRow(space=space, digest=digest, evaluation=evaluation))


async def doomed(session: AsyncSession, live: Collection[int]) -> list[DoomedRow]:
    """Blobs that go now, at most 1000; ``live`` are the states in which an evaluation is worked on."""
    works = select(EvaluationTable.name).where(
        col(EvaluationTable.name) == col(DoomedRow.evaluation), col(EvaluationTable.state).in_(live)
    )
    return list((await session.exec(select(DoomedRow).where(~works.exists()).limit(1000))).all())


async def named(session: AsyncSession, space: str) -> set[str]:
    """The digests of the blobs of a project in which evaluations keep their rows."""
    every = await EVALUATIONS.find(session, parent=space)
    return {each.report.rows_digest for each in every if not each.HasField("rows_forget_time")}


async def strike(unit: Unit, space: str, digest: str) -> None:
    """Takes a blob from those that go."""
    await unit.session.exec(delete(DoomedRow).where(col(DoomedRow.space) == space, col(DoomedRow.digest) == digest))


async def drop_batches(unit: Unit, evaluation: str, digests: Collection[str]) -> None:
    """Forgets batches of an evaluation."""
    query = delete(BatchRow).where(col(BatchRow.evaluation) == evaluation, col(BatchRow.digest).in_(digests))
    await unit.session.exec(query)
