"""The evaluator's rows: evaluations, and the batches of answers of those that are not over; it decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import UniqueConstraint
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

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


GIVEN_UP = (types.JOB_STATE_CANCELLED, types.JOB_STATE_EXPIRED)


def _columns(evaluation: evaluator.Evaluation) -> Mapping[str, Any]:
    counts = evaluation.suite_digest and evaluation.state not in GIVEN_UP
    return {
        "model_version": evaluation.model_version,
        "automatic": evaluation.automatic,
        "effective_suite": evaluation.suite_digest if counts else None,
    }


EVALUATIONS = Resources(EvaluationTable, evaluator.Evaluation, _columns, enums={"state": types.JobState})


async def effective(session: AsyncSession, model_version: str, suite_digest: str) -> evaluator.Evaluation | None:
    """The one evaluation that counts for a version under a suite, if there is one."""
    found = await EVALUATIONS.find(session, model_version=model_version, effective_suite=suite_digest)
    return found[0] if found else None


async def batches(session: AsyncSession, evaluation: str, model_version: str) -> list[BatchRow]:
    """The batches of answers of one version, in order."""
    query = select(BatchRow).where(col(BatchRow.evaluation) == evaluation, col(BatchRow.model_version) == model_version)
    return list((await session.exec(query.order_by(col(BatchRow.number)))).all())


async def drop_batches(unit: Unit, evaluation: str) -> list[str]:
    """Forgets all batches of an evaluation and returns their digests."""
    query = select(BatchRow).where(col(BatchRow.evaluation) == evaluation)
    dropped = list((await unit.session.exec(query)).all())
    for batch in dropped:
        await unit.session.delete(batch)
    return sorted({batch.digest for batch in dropped})
