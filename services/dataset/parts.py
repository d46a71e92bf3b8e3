"""Which parts the rows of a version lie in; what is in a part is not known here.

A part belongs to the upload that brings it until a version is made of that, and then to the version. Versions that
share rows name the same blobs, so a blob goes only when nobody names it any more, and not at once: somebody may be
about to name it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, or_, update
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.rpc.errors import StateConflict
from kit.rpc.names import project_of
from kit.store import Unit
from kit.store.tables import UtcTime
from services.dataset.checks import Part
from services.dataset.store import AT_A_TIME, UploadRow
from sluice.dataset import v1 as dataset


class PartRow(SQLModel, table=True):
    """One part of an owner: its place, its blob, and how many rows of each split are in it."""

    __tablename__ = "dataset_part"
    owner: str = Field(primary_key=True)
    place: int = Field(primary_key=True)
    project: str
    digest: str = Field(index=True)
    size_bytes: int
    train: int
    validation: int
    test: int

    def rows_of(self, split: str = "") -> int:
        """The rows of a split; of all when it is empty."""
        counts = {"train": self.train, "validation": self.validation, "test": self.test}
        return counts[split] if split else sum(counts.values())


class DoomedRow(SQLModel, table=True):
    """A blob that nobody named any more at that time; ``project`` is the space that it lies in."""

    __tablename__ = "dataset_doomed"
    project: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    since: datetime = Field(sa_type=UtcTime)


QUARANTINE = "/quarantine"
#: Of a part that holds no rows of a version.
NO_ROWS = {"train": 0, "validation": 0, "test": 0}


def new_part(upload: str, place: int, part: Part) -> PartRow:
    """A part that an upload brings."""
    return PartRow(
        owner=upload,
        place=place,
        project=project_of(upload),
        digest=f"sha256:{hashlib.sha256(part.content).hexdigest()}",
        size_bytes=len(part.content),
        **part.split_rows,
    )


def digest_of(parts: Iterable[PartRow]) -> str:
    """`sha256:<hex>` over the lines `<digest> <rows> LF` of the parts in their order."""
    lines = "".join(f"{part.digest} {part.rows_of()}\n" for part in parts)
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def quarantine_of(upload: str) -> str:
    """The owner of the rows that an upload put aside."""
    return upload + QUARANTINE


def pseudonyms_of(of: str) -> str:
    """The owner of what the pseudonyms in a dataset's DICOM files are made with."""
    return f"{of}/pseudonyms"


async def add(unit: Unit, part: PartRow) -> None:
    """Names a part as its owner's."""
    unit.session.add(part)


async def of(session: AsyncSession, owner: str) -> list[PartRow]:
    """The parts of a version or an upload, in order."""
    query = select(PartRow).where(col(PartRow.owner) == owner).order_by(col(PartRow.place))
    return list((await session.exec(query)).all())


async def stored(session: AsyncSession, version: dataset.DatasetVersion) -> list[PartRow]:
    """The parts of a version. Raises StateConflict where they are gone by age, or made before rows lay in parts."""
    if version.HasField("retire_time"):
        raise StateConflict(
            f"the rows of `{version.name}` were deleted, by the retention of its dataset or with all of it; "
            "`sluice dataset erasures` says when and why"
        )
    found = await of(session, version.name)
    if sum(part.rows_of() for part in found) != version.row_count:
        raise StateConflict(f"`{version.name}` was made by an earlier release and is not read; upload its file again")
    return found


async def hand_over(unit: Unit, upload: str, version: str, base: Sequence[PartRow]) -> None:
    """Makes an upload's parts those of a version, after the parts of the version it is appended to."""
    for part in base:
        unit.session.add(PartRow(**{**part.model_dump(), "owner": version}))
    rows = update(PartRow).where(col(PartRow.owner) == upload)
    after = base[-1].place + 1 if base else 0  # where rows were put aside, places have gaps
    await unit.session.exec(rows.values(owner=version, place=col(PartRow.place) + after))


async def drop(unit: Unit, owner: str) -> None:
    """Takes an owner's parts from it; blobs that nobody else names are doomed."""
    dropped = await of(unit.session, owner)
    await unit.session.exec(delete(PartRow).where(col(PartRow.owner) == owner))
    await doom(unit, project_of(owner), {part.digest for part in dropped})


async def doom(unit: Unit, project: str, digests: Iterable[str], spared: timedelta = timedelta()) -> None:
    """Puts down blobs that go, unless somebody names them, after a while; that begins when they were ``spared``."""
    for digest in digests:
        await unit.session.merge(DoomedRow(project=project, digest=digest, since=unit.now + spared))


async def doomed(session: AsyncSession, before: datetime, project: str = "") -> list[DoomedRow]:
    """Blobs doomed until that time, of one project and the spaces in it or of all, at most 100."""
    query = select(DoomedRow).where(col(DoomedRow.since) <= before).limit(AT_A_TIME)
    if project:
        query = query.where(or_(col(DoomedRow.project) == project, col(DoomedRow.project).startswith(f"{project}/")))
    return list((await session.exec(query)).all())


async def is_named(session: AsyncSession, blob: DoomedRow) -> bool:
    """Whether somebody names a doomed blob after all."""
    named = select(PartRow.owner).where(col(PartRow.project) == blob.project, col(PartRow.digest) == blob.digest)
    return (await session.exec(named.limit(1))).first() is not None


async def strike(unit: Unit, blob: DoomedRow) -> None:
    """Takes a blob from the doomed."""
    await unit.session.exec(
        delete(DoomedRow).where(col(DoomedRow.project) == blob.project, col(DoomedRow.digest) == blob.digest)
    )


async def ownerless(session: AsyncSession, of: str = "") -> list[str]:
    """Uploads, to one dataset or to all, that are over and still own parts that are no version's, at most 100."""
    owned = select(PartRow.owner).where(col(PartRow.owner) == col(UploadRow.name))
    aside = select(PartRow.owner).where(col(PartRow.owner) == col(UploadRow.name) + QUARANTINE)
    failed = col(UploadRow.state).in_([dataset.UPLOAD_STATE_FAILED, dataset.UPLOAD_STATE_EXPIRED])
    query = select(UploadRow.name).where(failed, or_(owned.exists(), aside.exists()))
    query = query.where(col(UploadRow.parent) == of) if of else query
    return list((await session.exec(query.limit(AT_A_TIME))).all())
