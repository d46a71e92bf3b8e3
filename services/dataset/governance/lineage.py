"""Which model versions saw which rows, as other services told it by events; weights and rows are not known here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.rpc.names import parent_of
from kit.store import Unit, UtcTime
from services.dataset.erasure.domain import ERASURES
from sluice.dataset import v1 as dataset

AT_A_TIME = 500


class ModelRow(SQLModel, table=True):
    """A model version and the one it starts from."""

    __tablename__ = "dataset_model"
    model_version: str = Field(primary_key=True)
    base: str = Field(default="", index=True)
    time: datetime = Field(sa_type=UtcTime)


class TaughtRow(SQLModel, table=True):
    """A model version and one that it learned from: a teacher, a reward model or a judge."""

    __tablename__ = "dataset_taught"
    model_version: str = Field(primary_key=True)
    teacher: str = Field(primary_key=True, index=True)
    time: datetime = Field(sa_type=UtcTime)


class UseRow(SQLModel, table=True):
    """A model version that was trained on a dataset version, or judged by one; `dataset_digest` is the one it had."""

    __tablename__ = "dataset_use"
    model_version: str = Field(primary_key=True)
    dataset_version: str = Field(primary_key=True)
    source: str = Field(primary_key=True)
    dataset: str = Field(index=True)
    seen: int
    dataset_digest: str = ""
    time: datetime = Field(sa_type=UtcTime)
    #: The blob with prompts out of its rows, by which its engine is held to its recipe; empty where there is none.
    parity: str = ""


class JobRow(SQLModel, table=True):
    """A training job that is not over and the dataset version it reads."""

    __tablename__ = "dataset_job"
    job: str = Field(primary_key=True)
    dataset_version: str = Field(index=True)


async def note_model(unit: Unit, model_version: str, base: str, teachers: Collection[str], time: datetime) -> None:
    """Puts down what a model version starts from, and which others it learned from."""
    await unit.session.merge(ModelRow(model_version=model_version, base=base, time=time))
    for teacher in sorted(set(teachers)):
        await unit.session.merge(TaughtRow(model_version=model_version, teacher=teacher, time=time))


async def note_use(unit: Unit, use: dataset.ModelUse, time: datetime, parity: str = "") -> None:
    """Puts down that a model version saw a dataset version, and the blob with prompts that it left of that."""
    row = UseRow(
        model_version=use.model_version,
        dataset_version=use.dataset_version,
        source=use.source,
        dataset=parent_of(use.dataset_version),
        seen=use.seen,
        dataset_digest=use.dataset_digest,
        time=time,
        parity=parity,
    )
    await unit.session.merge(row)


async def prompts_of(session: AsyncSession, versions: Collection[str]) -> set[str]:
    """The blobs with prompts out of rows of dataset versions."""
    ordered, found = sorted(versions), set[str]()
    for start in range(0, len(ordered), AT_A_TIME):
        mine = col(UseRow.dataset_version).in_(ordered[start : start + AT_A_TIME])
        found.update((await session.exec(select(UseRow.parity).where(mine, col(UseRow.parity) != ""))).all())
    return found


async def begin_job(unit: Unit, job: str, dataset_version: str) -> None:
    """Puts down that a job is going to read a dataset version."""
    await unit.session.merge(JobRow(job=job, dataset_version=dataset_version))


async def end_job(unit: Unit, job: str) -> None:
    """A job reads no more."""
    row = await unit.session.get(JobRow, job)
    if row is not None:
        await unit.session.delete(row)


async def wanted_by_jobs(session: AsyncSession, versions: Collection[str]) -> set[str]:
    """Those of the versions that a job reads which is not over."""
    query = select(JobRow.dataset_version).where(col(JobRow.dataset_version).in_(versions))
    return set((await session.exec(query)).all())


async def uses_of(session: AsyncSession, of: str) -> list[dataset.ModelUse]:
    """Who saw a dataset or one version of it, newest first; models that start or learned from those that were trained
    included.
    """
    whole = "/versions/" not in of
    query = select(UseRow).where(col(UseRow.dataset) == of if whole else col(UseRow.dataset_version) == of)
    rows = (await session.exec(query)).all()
    uses = [_use(row) for row in rows]
    inherited = await _inherited(session, [use for use in uses if use.seen == dataset.SEEN_TRAINED])
    return sorted([*uses, *inherited], key=lambda use: (-use.time.ToNanoseconds(), *_identity(use)))


async def touched(session: AsyncSession, erasure: dataset.Erasure) -> list[dataset.ModelUse]:
    """The model versions that saw the rows of an erasure: versions it changed, at a digest from before it did.

    Where nobody said at which digest, whoever saw the version before the end of the erasure counts.
    """
    of = parent_of(erasure.name)
    changed = {change.dataset_version for change in erasure.changes}
    cleaned = set() if erasure.dry_run else await _digests_since(session, of, erasure)
    trained = [
        use
        for use in await uses_of(session, of)
        if use.dataset_version in changed
        and use.seen in (dataset.SEEN_TRAINED, dataset.SEEN_EVALUATED)
        and use.dataset_digest not in cleaned
        and (use.dataset_digest or _before_end(use, erasure))
    ]
    inherited = await _inherited(session, [use for use in trained if use.seen == dataset.SEEN_TRAINED])
    return sorted([*trained, *inherited], key=_identity)


async def _inherited(session: AsyncSession, trained: Iterable[dataset.ModelUse]) -> list[dataset.ModelUse]:
    """Those that start from models that were trained, or learned from them, and so on from these in turn."""
    found: dict[tuple[str, ...], dataset.ModelUse] = {}
    frontier = list(trained)
    while frontier:
        by_model: dict[str, list[dataset.ModelUse]] = {}
        for use in frontier:
            by_model.setdefault(use.model_version, []).append(use)
        frontier = []
        for heir in await _heirs(session, by_model):
            for use in by_model[heir.source]:
                child = dataset.ModelUse()
                child.CopyFrom(use)
                child.model_version, child.seen, child.source = heir.model_version, heir.seen, heir.source
                child.time.FromDatetime(heir.time)
                if _identity(child) not in found:
                    found[_identity(child)] = child
                    frontier.append(child)
    return list(found.values())


class _Heir(NamedTuple):
    """A model version that has from ``source`` what that saw."""

    model_version: str
    source: str
    seen: dataset.Seen
    time: datetime


async def _heirs(session: AsyncSession, models: Mapping[str, object]) -> list[_Heir]:
    names, found = sorted(models), list[_Heir]()
    for start in range(0, len(names), AT_A_TIME):
        some = names[start : start + AT_A_TIME]
        bases = (await session.exec(select(ModelRow).where(col(ModelRow.base).in_(some)))).all()
        found += [_Heir(row.model_version, row.base, dataset.SEEN_INHERITED, row.time) for row in bases]
        teachers = (await session.exec(select(TaughtRow).where(col(TaughtRow.teacher).in_(some)))).all()
        found += [_Heir(row.model_version, row.teacher, dataset.SEEN_TAUGHT, row.time) for row in teachers]
    return found


async def _digests_since(session: AsyncSession, of: str, erasure: dataset.Erasure) -> set[str]:
    """The digests that versions have had since an erasure changed them: whoever saw those did not see its rows."""
    later = {(change.dataset_version, change.digest) for change in erasure.changes}
    for each in await ERASURES.find(session, parent=of, dry_run=False):
        if each.create_time.ToNanoseconds() > erasure.create_time.ToNanoseconds():
            later |= {
                (change.dataset_version, change.digest)
                for change in each.changes
                if (change.dataset_version, change.old_digest) in later
            }
    return {digest for _, digest in later if digest}


def _before_end(use: dataset.ModelUse, erasure: dataset.Erasure) -> bool:
    return not erasure.HasField("end_time") or use.time.ToNanoseconds() < erasure.end_time.ToNanoseconds()


def _identity(use: dataset.ModelUse) -> tuple[str, ...]:
    return (use.model_version, use.dataset_version, use.source, use.dataset_digest)


def _use(row: UseRow) -> dataset.ModelUse:
    use = dataset.ModelUse(
        model_version=row.model_version,
        dataset_version=row.dataset_version,
        dataset_digest=row.dataset_digest,
        seen=row.seen,  # type: ignore[arg-type]
        source=row.source,
    )
    use.time.FromDatetime(row.time)
    return use
