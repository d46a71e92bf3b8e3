"""The tables of the registry and the resources in them; what may happen to them is the domain's matter."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import LargeBinary, UniqueConstraint, delete, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Field, SQLModel, col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.rpc.names import id_of, parent_of
from kit.store import ResourceRow, Resources, Unit, UtcTime
from sluice.registry import v1 as registry
from sluice.types import v1 as types


class ProjectRow(ResourceRow, table=True):
    """A project."""

    __tablename__ = "registry_project"


class KeyRow(ResourceRow, table=True):
    """A key. The secret is nowhere; its hash is."""

    __tablename__ = "registry_api_key"
    secret_sha256: bytes = Field(sa_type=LargeBinary, unique=True)


class ModelRow(ResourceRow, table=True):
    """A model."""

    __tablename__ = "registry_model"
    task_type: str = Field(index=True)
    endpoint: str = Field(index=True)


class VersionRow(ResourceRow, table=True):
    """A model version: at most one for each training job, and one for the same weights of a model on the same base."""

    __tablename__ = "registry_model_version"
    __table_args__ = (UniqueConstraint("parent", "source"),)
    training_job: str = Field(index=True)
    digest: str = Field(index=True)
    endpoint: str = Field(index=True)
    #: The training job; of imported weights their digest, and of an adapter its base behind it.
    source: str
    source_id: str = Field(default="", index=True)


class FileRow(SQLModel, table=True):
    """A file of a model that is stored: of a version, or of an import on its way or broken off."""

    __tablename__ = "registry_file"
    project: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)


class LooseRow(SQLModel, table=True):
    """Weights that an import brought and no version has yet, and when an import last brought or named them."""

    __tablename__ = "registry_loose_file"
    project: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    time: datetime = Field(index=True, sa_type=UtcTime)


class PolicyRow(ResourceRow, table=True):
    """A gate policy of a project."""

    __tablename__ = "registry_gate_policy"


class TaskTypeRow(ResourceRow, table=True):
    """A task type of a project."""

    __tablename__ = "registry_task_type"


PROJECTS = Resources(ProjectRow, registry.Project)
MODELS = Resources(
    ModelRow,
    registry.Model,
    lambda each: {"task_type": each.task_type, "endpoint": each.endpoint or id_of(each.name)},
)
POLICIES = Resources(PolicyRow, registry.GatePolicy)
TASK_TYPES = Resources(TaskTypeRow, registry.TaskType)
VERSIONS = Resources(
    VersionRow,
    registry.ModelVersion,
    lambda each: {
        "training_job": each.lineage.training_job,
        "digest": each.artifact.digest,
        "endpoint": each.endpoint,
        "source": each.lineage.training_job or " ".join(filter(None, (each.artifact.digest, each.base_model_version))),
        "source_id": each.source_id,
    },
    enums={"state": registry.ModelVersionState},
)


def keys(secret_sha256: bytes = b"") -> Resources[registry.ApiKey]:
    """The keys; the hash is given when one is inserted or updated."""
    return Resources(KeyRow, registry.ApiKey, lambda each: {"secret_sha256": secret_sha256})


async def key_hash(session: AsyncSession, name: str) -> bytes:
    """The hash of the secret of a key."""
    query = select(KeyRow.secret_sha256).where(col(KeyRow.name) == name)
    return bytes((await session.exec(query)).one())


async def working_keys(session: AsyncSession) -> list[tuple[registry.ApiKey, bytes]]:
    """Every key that was not revoked, with the hash of its secret."""
    rows = (await session.exec(select(KeyRow.name, KeyRow.secret_sha256))).all()
    hashes = {name: bytes(secret) for name, secret in rows}
    found = await keys().find(session)
    return [(key, hashes[key.name]) for key in found if not key.HasField("revoke_time")]


async def access_revision(session: AsyncSession) -> int:
    """A number that grows with every change of a key and every project, as neither is ever deleted."""
    keys = select(func.coalesce(func.sum(KeyRow.revision), 0))
    return int((await session.exec(keys)).one()) + await PROJECTS.count(session)


async def stored_files(session: AsyncSession, project: str, digests: Collection[str]) -> set[str]:
    """Those of the digests that files of models in a project have."""
    query = select(FileRow.digest).where(col(FileRow.project) == project, col(FileRow.digest).in_(digests))
    return set((await session.exec(query)).all())


async def note_files(unit: Unit, project: str, digests: Collection[str]) -> None:
    """Remembers files that are stored; those that are known stay."""
    insert = postgresql.insert if unit.session.get_bind().dialect.name == "postgresql" else sqlite.insert
    rows = [{"project": project, "digest": digest} for digest in sorted(set(digests))]
    if rows:
        await unit.session.exec(insert(FileRow).values(rows).on_conflict_do_nothing())


async def note_import(unit: Unit, project: str, file: types.ArtifactFile, brought: bool) -> None:
    """Remembers a file that an import stores. Weights that it ``brought``, and no version has, are loose until then.

    What was stored before may have owners of whom the registry knows nothing, or not yet: a package to take away, or
    what a training job leaves. Other files than weights are small, and often those of a job.
    """
    known = await stored_files(unit.session, project, [file.digest])
    await note_files(unit, project, [file.digest])
    if brought and file.path.endswith(".safetensors") and not known:
        unit.session.add(LooseRow(project=project, digest=file.digest, time=unit.now))
    else:
        await touch(unit, project, [file.digest])


async def touch(unit: Unit, project: str, digests: Collection[str]) -> None:
    """Lets loose weights that an import names stay for as long as new ones."""
    mine = (col(LooseRow.project) == project, col(LooseRow.digest).in_(digests))
    await unit.session.exec(update(LooseRow).where(*mine).values(time=unit.now))


async def hold(unit: Unit, project: str, digests: Collection[str]) -> None:
    """The files are a version's, or of another owner, from now on."""
    await note_files(unit, project, digests)
    mine = (col(LooseRow.project) == project, col(LooseRow.digest).in_(digests))
    await unit.session.exec(delete(LooseRow).where(*mine))


async def loose(session: AsyncSession, before: datetime, skip: int = 0, limit: int = 100) -> list[LooseRow]:
    """Weights of no version that no import has named since then, the oldest first: ``limit`` of them after ``skip``."""
    order = (col(LooseRow.time), col(LooseRow.project), col(LooseRow.digest))
    query = select(LooseRow).where(order[0] < before).order_by(*order).offset(skip).limit(limit)
    return list((await session.exec(query)).all())


async def strike(unit: Unit, file: LooseRow, before: datetime) -> bool:
    """Forgets a file that is loose still; whether it was."""
    mine = (col(LooseRow.project) == file.project, col(LooseRow.digest) == file.digest, col(LooseRow.time) < before)
    if not (await unit.session.exec(delete(LooseRow).where(*mine))).rowcount:
        return False
    theirs = (col(FileRow.project) == file.project, col(FileRow.digest) == file.digest)
    await unit.session.exec(delete(FileRow).where(*theirs))
    return True


async def claim(unit: Unit, file: LooseRow) -> bool:
    """Takes a file that was struck, so that whoever is about to name it waits for this unit; whether nobody has."""
    if await stored_files(unit.session, file.project, [file.digest]):
        return False
    await note_files(unit, file.project, [file.digest])
    return True


async def unclaim(unit: Unit, file: LooseRow, stays: bool) -> None:
    """Ends a claim: a file that ``stays`` is as loose as it was, another is forgotten."""
    if stays:
        unit.session.add(LooseRow(project=file.project, digest=file.digest, time=file.time))
        return
    theirs = (col(FileRow.project) == file.project, col(FileRow.digest) == file.digest)
    await unit.session.exec(delete(FileRow).where(*theirs))


async def get_version(session: AsyncSession, name: str) -> registry.ModelVersion:
    """The version of that name, by number, ``latest`` or an alias. Raises NotFound."""
    wanted = id_of(name)
    if not wanted.isdecimal():
        model = await MODELS.get(session, parent_of(name))
        number = model.latest_version if wanted == "latest" else model.aliases.get(wanted, 0)
        if number:
            name = f"{model.name}/versions/{number}"
    return await VERSIONS.get(session, name)
