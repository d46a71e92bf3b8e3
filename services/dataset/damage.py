"""What is known of stored blobs that cannot be read, and how far the look through all of them is; it reads no blob."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.rpc.errors import AlreadyExists, Corrupt
from kit.rpc.names import id_of, project_of
from kit.store import Database, ResourceRow, Resources, Unit, UtcTime
from kit.telemetry import count, get_log
from services.dataset.media import assets
from services.dataset.media.assets import NamedRow
from services.dataset.parts import PartRow
from services.dataset.store import UploadRow
from sluice import lifecycle
from sluice.dataset import v1 as dataset

log = get_log(__name__)
#: Versions that one damaged blob tells of.
VERSIONS_TOLD = 100


class DamagedBlobRow(ResourceRow, table=True):
    """A blob that cannot be read."""

    __tablename__ = "dataset_damaged_blob"


class ScrubRow(SQLModel, table=True):
    """The look through all blobs: one row, of the one under way or the last."""

    __tablename__ = "dataset_scrub"
    id: int = Field(default=1, primary_key=True)
    #: The path of the envelope that was looked at last; behind it the look goes on.
    place: str = ""
    begun: datetime = Field(sa_type=UtcTime)
    ended: datetime | None = Field(default=None, sa_type=UtcTime)
    blobs: int = 0
    size_bytes: int = Field(default=0, sa_type=BigInteger)
    damaged: int = 0


_OF_A_VERSION = col(PartRow.owner).contains("/versions/")
DAMAGED = Resources(DamagedBlobRow, dataset.DamagedBlob)


def name_of(space: str, digest: str) -> str:
    """The name of a damaged blob; of one in the space of an upload, with the id of that."""
    project, _, upload = space.partition("/uploads/")
    return f"{project}/damagedBlobs/{upload}{'.' if upload else ''}{digest.removeprefix('sha256:')}"


async def note(unit: Unit, space: str, digest: str, damage: dataset.Damage) -> bool:
    """Puts a damaged blob down and tells of it; False when it is known."""
    name = name_of(space, digest)
    if await DAMAGED.find(unit.session, name=name):
        return False
    blob = dataset.DamagedBlob(name=name, digest=digest, space=space, damage=damage)
    await DAMAGED.insert(unit, blob)
    told = dataset.BlobDamaged(
        damaged_blob=name,
        digest=digest,
        damage=dataset.Damage.Name(damage),
        dataset_versions=await versions_with(unit.session, blob),
    )
    unit.emit(told, name)
    return True


async def record(database: Database, space: str, digest: str, what: dataset.Damage) -> None:
    """Puts a damaged blob down as soon as somebody meets it, and says so once."""
    try:
        is_new = await database.transact(lambda unit: note(unit, space, digest, what))
    except AlreadyExists:  # somebody else met it at the same time
        return
    if is_new:
        name = dataset.Damage.Name(what)
        log.error("blob_damaged", space=space, digest=digest, damage=name)
        count("sluice_blobs_damaged_total", damage=name)


def of_version(name: str) -> Corrupt:
    """What whoever needs the rows of a damaged version is told."""
    return Corrupt(
        f"`{name}` is damaged: some of what its rows are stored in cannot be read; upload the file again",
        resource=("DatasetVersion", name),
    )


async def forget(unit: Unit, name: str) -> None:
    """Takes a blob from the damaged; nothing when it is none of them."""
    if await DAMAGED.find(unit.session, name=name):
        await DAMAGED.delete(unit, name)


async def page(
    session: AsyncSession, parent: str, size: int, token: str
) -> tuple[list[dataset.DamagedBlob], str, dataset.Scrub | None]:
    """One page of damaged blobs with the versions they hit, the token of the next, and how far the look is."""
    found, following = await DAMAGED.page(session, parent=parent, page_size=size, page_token=token)
    for blob in found:
        blob.dataset_versions.extend(await versions_with(session, blob))
    return found, following, _scrub_of(await session.get(ScrubRow, 1))


async def hits(session: AsyncSession, version: str) -> bool:
    """Whether a version has rows in a blob that is known to be damaged, or rows that name one as an asset."""
    for blob in await DAMAGED.find(session, parent=project_of(version)):
        if await versions_with(session, blob, version):
            return True
    return False


async def versions_with(session: AsyncSession, blob: dataset.DamagedBlob, only: str = "") -> list[str]:
    """The dataset versions with rows in a blob, or with rows that name it as an asset; at most 100, or ``only`` one."""
    if assets.is_space(blob.space):
        project = project_of(blob.space)
        naming = select(NamedRow.part).where(col(NamedRow.project) == project, col(NamedRow.digest) == blob.digest)
        mine = (col(PartRow.project) == project) & col(PartRow.digest).in_(naming)
    else:
        mine = (col(PartRow.project) == blob.space) & (col(PartRow.digest) == blob.digest)
    query = select(PartRow.owner).where(mine, col(PartRow.owner) == only if only else _OF_A_VERSION)
    return list((await session.exec(query.distinct().order_by(col(PartRow.owner)).limit(VERSIONS_TOLD))).all())


async def named(session: AsyncSession, project: str) -> set[tuple[str, str]]:
    """Space and digest of the blobs that versions of a project name: all of them are stored."""
    rows = select(PartRow.digest).where(col(PartRow.project) == project, _OF_A_VERSION).distinct()
    of_versions = select(PartRow.digest).where(col(PartRow.project) == project, _OF_A_VERSION)
    beside = select(NamedRow.digest).where(col(NamedRow.project) == project, col(NamedRow.part).in_(of_versions))
    found = {(project, digest) for digest in (await session.exec(rows)).all()}
    return found | {(assets.space_of(project), digest) for digest in (await session.exec(beside.distinct())).all()}


async def projects(session: AsyncSession) -> list[str]:
    """The projects that have rows."""
    return list((await session.exec(select(PartRow.project).distinct().order_by(PartRow.project))).all())


async def is_over(session: AsyncSession, space: str) -> bool:
    """Whether a space is that of an upload of ours that takes no bytes any more and is not checked.

    An upload that is not known may be another suite's in the same bucket.
    """
    query = select(UploadRow.name, UploadRow.state).where(col(UploadRow.name).endswith(f"/uploads/{id_of(space)}"))
    found = [each for each in (await session.exec(query)).all() if project_of(each[0]) == project_of(space)]
    return bool(found) and all(lifecycle.is_over(lifecycle.UPLOAD, state) for _, state in found)


def _scrub_of(row: ScrubRow | None) -> dataset.Scrub | None:
    if row is None:
        return None
    scrub = dataset.Scrub(blobs=row.blobs, size_bytes=row.size_bytes, damaged_blobs=row.damaged)
    scrub.begin_time.FromDatetime(row.begun)
    if row.ended is not None:
        scrub.end_time.FromDatetime(row.ended)
    return scrub
