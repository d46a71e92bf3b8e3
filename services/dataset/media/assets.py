"""Which images, frames and sounds there are in a project, and who names them; what is in them is not known here.

An asset is a blob. It is named by the upload that it came with, and by the parts whose rows name it. It goes when
nobody does, as parts do: doomed first, deleted later. It is one of the datasets to which its bytes came, and of those
for which somebody named it who may read one of these: to know a digest gives no right to what has it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import delete
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.rpc import paging
from kit.rpc.errors import NotFound, StateConflict
from kit.rpc.names import parent_of, project_of
from kit.store import Unit
from services.dataset.parts import DoomedRow, PartRow
from services.dataset.store import AT_A_TIME, UploadRow
from sluice.dataset import v1 as dataset

#: What one statement may ask about at once; SQLite knows 32766 variables.
CHUNK = 500
#: The columns of parts that name assets.
KINDS = ("images", "videos", "audios")


_SPACE = "/uploads/assets"


def space_of(project: str) -> str:
    """Where the assets of a project lie: in a space of their own, so that deleting one takes nothing from others."""
    return project + _SPACE


def is_space(space: str) -> bool:
    """Whether assets lie there, and nothing else."""
    return space.endswith(_SPACE)


class AssetRow(SQLModel, table=True):
    """A stored blob that is an asset of a dataset; its type is empty until somebody has decoded it."""

    __tablename__ = "dataset_asset"
    parent: str = Field(primary_key=True)
    digest: str = Field(primary_key=True, index=True)
    project: str
    size_bytes: int
    type: str = ""
    width: int = 0
    height: int = 0


class BesideRow(SQLModel, table=True):
    """An asset that came with an upload, under a path; under its digest where it was found in an archive."""

    __tablename__ = "dataset_asset_beside"
    upload: str = Field(primary_key=True)
    path: str = Field(primary_key=True)
    project: str
    digest: str = Field(index=True)
    size_bytes: int


class NamedRow(SQLModel, table=True):
    """An asset that rows of a part name in a column: `images`, `videos` or `audios`."""

    __tablename__ = "dataset_asset_named"
    project: str = Field(primary_key=True)
    part: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    digest: str = Field(primary_key=True, index=True)


#: Where a part is that names an asset.
_PART = (col(PartRow.project) == col(NamedRow.project)) & (col(PartRow.digest) == col(NamedRow.part))


class Said(NamedTuple):
    """What is said of an asset beside rows."""

    path: str
    digest: str
    size_bytes: int


async def bring(unit: Unit, upload: str, assets: Iterable[Said]) -> list[str]:
    """Names assets as an upload's; returns the digests of those that its dataset lacks, each once."""
    project, wanted, former = project_of(upload), {each.path: each for each in assets}, list[str]()
    there = {row.path: row for row in await _in_chunks(unit.session, BesideRow, "path", wanted, upload=upload)}
    for each in wanted.values():
        if each.path in there:
            former += [there[each.path].digest]
            there[each.path].digest, there[each.path].size_bytes = each.digest, each.size_bytes
        else:
            unit.session.add(BesideRow(upload=upload, project=project, **each._asdict()))
    await unit.session.flush()
    await doom(unit, project, former)
    digests = list(dict.fromkeys(each.digest for each in wanted.values()))
    there = await known(unit.session, parent_of(upload), digests)
    return [digest for digest in digests if digest not in there]


async def share(unit: Unit, parent: str, digests: Iterable[str], hidden: Collection[str]) -> set[str]:
    """Makes assets those of a dataset that are another's, of the same project and none of the ``hidden``; which."""
    project = project_of(parent)
    found = await _in_chunks(unit.session, AssetRow, "digest", digests, project=project)
    others = {row.digest: row for row in found if row.parent not in hidden}
    unit.session.add_all(AssetRow(**{**row.model_dump(), "parent": parent}) for row in others.values())
    return set(others)


async def listed(unit: Unit, parent: str, found: Iterable[AssetRow]) -> None:
    """Puts down assets whose bytes are stored; what is known of one already stays unless more is known now.

    They are doomed where nobody names them any more: the upload may have ended while they came.
    """
    rows = {row.digest: row for row in found}
    there = await known(unit.session, parent, rows)
    for digest, row in rows.items():
        if digest not in there and row.size_bytes:  # of one whose bytes did not come is only told what it is
            unit.session.add(row)
        elif digest in there and row.type and not there[digest].type:
            there[digest].type, there[digest].width, there[digest].height = row.type, row.width, row.height
    await doom(unit, project_of(parent), list(rows))


async def known(session: AsyncSession, parent: str, digests: Iterable[str]) -> dict[str, AssetRow]:
    """Those of the assets that the dataset has."""
    return {row.digest: row for row in await _in_chunks(session, AssetRow, "digest", digests, parent=parent)}


async def image_sizes(session: AsyncSession, project: str, named_by: Iterable[PartRow]) -> dict[str, tuple[int, int]]:
    """The width and height in pixels of the images that parts name, where they are known, by digest."""
    query = select(AssetRow.digest, AssetRow.width, AssetRow.height).join(
        NamedRow, (col(NamedRow.project) == col(AssetRow.project)) & (col(NamedRow.digest) == col(AssetRow.digest))
    )
    query = query.where(col(AssetRow.project) == project, col(AssetRow.width) > 0, col(NamedRow.kind) == "images")
    digests, found = sorted({part.digest for part in named_by}), {}
    for start in range(0, len(digests), CHUNK):
        some = query.where(col(NamedRow.part).in_(digests[start : start + CHUNK]))
        found.update({digest: (width, height) for digest, width, height in (await session.exec(some)).all()})
    return found


async def page(session: AsyncSession, upload: str, after: str, most: int) -> list[tuple[BesideRow, str]]:
    """Assets beside an upload in the order of their paths, with their types where these are known."""
    mine = (col(AssetRow.parent) == parent_of(upload)) & (col(AssetRow.digest) == col(BesideRow.digest))
    query = select(BesideRow, AssetRow.type).join(AssetRow, mine, isouter=True)
    query = query.where(col(BesideRow.upload) == upload, col(BesideRow.path) > after)
    found = (await session.exec(query.order_by(col(BesideRow.path)).limit(most))).all()
    return [(row, kind or "") for row, kind in found]


async def brings(session: AsyncSession, upload: str, digest: str = "") -> BesideRow | None:
    """An asset that came with an upload: that of the digest, or any."""
    query = select(BesideRow).where(col(BesideRow.upload) == upload)
    query = query.where(col(BesideRow.digest) == digest) if digest else query
    return (await session.exec(query.limit(1))).first()


async def name(unit: Unit, project: str, part: str, assets: Mapping[str, Sequence[str]], bringer: str = "") -> None:
    """Puts down which assets a part names. Raises StateConflict for one that its upload did not bring, bytes and all.

    Parts that are made of others have no bringer; what they name is named already.
    """
    for kind, digests in assets.items():
        if bringer:
            rows = await _in_chunks(unit.session, BesideRow, "digest", digests, upload=bringer)
            stored = await known(unit.session, parent_of(bringer), digests)
            if {row.digest for row in rows} & set(stored) < set(digests):
                raise StateConflict("a part names an asset that did not come with its upload; it is checked again")
        wanted = {"project": project, "part": part, "kind": kind}
        there = {row.digest for row in await _in_chunks(unit.session, NamedRow, "digest", digests, **wanted)}
        unit.session.add_all(NamedRow(digest=digest, **wanted) for digest in set(digests) - there)


async def kinds_of(session: AsyncSession, owner: str) -> list[str]:
    """The columns in which rows of a version, or of an upload that is checked, name assets."""
    found = list[str]()
    for kind in KINDS:  # one probe a part: a version may name a million
        query = select(NamedRow.kind).join(PartRow, _PART)
        query = query.where(col(PartRow.owner) == owner, col(NamedRow.kind) == kind)
        found += (await session.exec(query.limit(1))).all()
    return found


async def of_version(session: AsyncSession, version: str, digests: Iterable[str]) -> dict[str, AssetRow]:
    """Assets that rows of a version name, by digest. Raises NotFound when one of them is not."""
    wanted, found, parent = list(dict.fromkeys(digests)), dict[str, AssetRow](), parent_of(version)
    project = project_of(version)
    for start in range(0, len(wanted), CHUNK):
        some = wanted[start : start + CHUNK]
        query = select(NamedRow.digest).join(PartRow, _PART)
        query = query.where(col(PartRow.owner) == version, col(NamedRow.digest).in_(some)).distinct()
        theirs = (await session.exec(query)).all()
        found |= {digest: AssetRow(parent=parent, digest=digest, project=project, size_bytes=0) for digest in theirs}
        found |= await known(session, parent, theirs)
    for digest in wanted:
        if digest not in found:
            raise NotFound(f"no row of `{version}` names the asset `{digest}`", resource=("Asset", digest))
    return found


async def page_of_version(session: AsyncSession, version: str, most: int, token: str) -> tuple[list[AssetRow], str]:
    """One page of the assets that rows of a version name, by digest, and the token of the next."""
    after = paging.decode(token, "assets", version, of=(str,)) or [""]
    mine = select(PartRow.digest).where(col(PartRow.owner) == version)
    query = select(NamedRow.digest).where(col(NamedRow.part).in_(mine), col(NamedRow.digest) > after[0])
    query = query.where(col(NamedRow.project) == project_of(version)).distinct().order_by(col(NamedRow.digest))
    digests = list((await session.exec(query.limit(most + 1))).all())
    more = paging.encode([digests[most - 1]], "assets", version) if len(digests) > most else ""
    found = await known(session, parent_of(version), digests[:most])
    return [found[digest] for digest in digests[:most] if digest in found], more


async def drop(unit: Unit, upload: str) -> None:
    """Takes its assets from an upload that is over; those that nobody else names are doomed."""
    mine = select(BesideRow.digest).where(col(BesideRow.upload) == upload).distinct()
    digests = list((await unit.session.exec(mine)).all())
    await unit.session.exec(delete(BesideRow).where(col(BesideRow.upload) == upload))
    await doom(unit, project_of(upload), digests)


async def spare(unit: Unit, blob: DoomedRow) -> bool:
    """Whether somebody names a doomed asset; where nobody does, no dataset has it any more."""
    project = project_of(blob.project)
    if await _named(unit.session, project, [blob.digest]):
        return True
    await lost(unit, project, blob.digest)
    return False


async def release(unit: Unit, blob: DoomedRow) -> None:
    """After a part is gone: what it named, and nobody else does, is doomed since it was."""
    mine = (col(NamedRow.project) == blob.project, col(NamedRow.part) == blob.digest)
    digests = list((await unit.session.exec(select(NamedRow.digest).where(*mine).distinct())).all())
    if digests:
        await unit.session.exec(delete(NamedRow).where(*mine))
        await doom(unit, blob.project, digests, blob.since)


async def lost(unit: Unit, project: str, digest: str) -> None:
    """Puts down that the bytes of an asset are gone, so that they are asked for again."""
    await unit.session.exec(delete(AssetRow).where(col(AssetRow.project) == project, col(AssetRow.digest) == digest))


async def leftovers(session: AsyncSession) -> list[str]:
    """Uploads that are over and still have assets beside them, at most 100."""
    lives = [dataset.UPLOAD_STATE_OPEN, dataset.UPLOAD_STATE_VALIDATING]
    beside = select(BesideRow.upload).where(col(BesideRow.upload) == col(UploadRow.name)).exists()
    query = select(UploadRow.name).where(col(UploadRow.state).not_in(lives), beside)
    return list((await session.exec(query.limit(AT_A_TIME))).all())


async def doom(unit: Unit, project: str, digests: Sequence[str], since: Any = None) -> None:
    """Those of the assets go, after a while, that nobody names."""
    for start in range(0, len(digests), CHUNK):
        some = digests[start : start + CHUNK]
        named = await _named(unit.session, project, some)
        for digest in set(some) - named:
            await unit.session.merge(DoomedRow(project=space_of(project), digest=digest, since=since or unit.now))


async def _named(session: AsyncSession, project: str, digests: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for row in (NamedRow, BesideRow):
        query = select(row.digest).where(col(row.project) == project, col(row.digest).in_(digests)).distinct()
        found.update((await session.exec(query)).all())
    return found


async def _in_chunks(session: AsyncSession, row: Any, column: str, values: Iterable[str], **equal: str) -> list[Any]:
    """The rows with one of the values in a column, and these values in others."""
    wanted, found = list(dict.fromkeys(values)), list[Any]()
    for start in range(0, len(wanted), CHUNK):
        query = select(row).where(col(getattr(row, column)).in_(wanted[start : start + CHUNK]))
        query = query.where(*(col(getattr(row, name)) == value for name, value in equal.items()))
        found += (await session.exec(query)).all()
    return found
