"""What is known of stored blobs that cannot be read, and how far the look through all of them is; it reads no blob."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, or_
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.rpc.names import id_of, project_of
from kit.store import ResourceRow, Resources, Unit, UtcTime
from services.dataset.media.assets import NamedRow
from services.dataset.parts import PartRow
from services.dataset.store import UploadRow
from sluice import lifecycle
from sluice.dataset import v1 as dataset

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


async def versions_with(session: AsyncSession, blob: dataset.DamagedBlob) -> list[str]:
    """The dataset versions with rows in a blob, or with rows that name it as an asset; at most 100."""
    naming = select(NamedRow.part).where(col(NamedRow.project) == blob.space, col(NamedRow.digest) == blob.digest)
    mine = or_(col(PartRow.digest) == blob.digest, col(PartRow.digest).in_(naming))
    query = select(PartRow.owner).where(col(PartRow.project) == blob.space, mine, _OF_A_VERSION)
    return list((await session.exec(query.distinct().order_by(col(PartRow.owner)).limit(VERSIONS_TOLD))).all())


async def named(session: AsyncSession, project: str) -> set[str]:
    """The digests of blobs that versions of a project name: all of them are stored."""
    rows = select(PartRow.digest).where(col(PartRow.project) == project, _OF_A_VERSION).distinct()
    of_versions = select(PartRow.digest).where(col(PartRow.project) == project, _OF_A_VERSION)
    assets = select(NamedRow.digest).where(col(NamedRow.project) == project, col(NamedRow.part).in_(of_versions))
    return {*(await session.exec(rows)).all(), *(await session.exec(assets.distinct())).all()}


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
