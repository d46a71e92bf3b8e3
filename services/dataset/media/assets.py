"""Which images, frames and sounds there are in a project, and who names them; what is in them is not known here.

An asset is a blob. It is named by the upload that it came with, and by the parts whose rows name it. It goes when
nobody does, as parts do: doomed first, deleted later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import delete
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.rpc import paging
from kit.rpc.errors import NotFound, StateConflict
from kit.rpc.names import project_of
from kit.store import Unit
from services.dataset.parts import DoomedRow, PartRow
from services.dataset.store import AT_A_TIME, UploadRow
from sluice.dataset import v1 as dataset

#: What one statement may ask about at once; SQLite knows 32766 variables.
CHUNK = 500
#: The columns of parts that name assets.
KINDS = ("images", "videos", "audios")


class AssetRow(SQLModel, table=True):
    """A blob of a project that is an asset; its type is empty until somebody has decoded it."""

    __tablename__ = "dataset_asset"
    project: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
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
    """Names assets as an upload's; returns the digests of those that the project lacks, each once."""
    project, wanted = project_of(upload), {each.path: each for each in assets}
    there = {row.path: row for row in await _in_chunks(unit.session, BesideRow, "path", wanted, upload=upload)}
    for each in wanted.values():
        if each.path in there:
            there[each.path].digest, there[each.path].size_bytes = each.digest, each.size_bytes
        else:
            unit.session.add(BesideRow(upload=upload, project=project, **each._asdict()))
    digests = list(dict.fromkeys(each.digest for each in wanted.values()))
    known = {row.digest for row in await _in_chunks(unit.session, AssetRow, "digest", digests, project=project)}
    return [digest for digest in digests if digest not in known]


async def listed(unit: Unit, project: str, found: Iterable[AssetRow]) -> None:
    """Puts down assets whose bytes are stored; what is known of one already stays unless more is known now."""
    rows = {row.digest: row for row in found}
    there = {row.digest: row for row in await _in_chunks(unit.session, AssetRow, "digest", rows, project=project)}
    for digest, row in rows.items():
        if digest not in there:
            unit.session.add(row)
        elif row.type and not there[digest].type:
            there[digest].type, there[digest].width, there[digest].height = row.type, row.width, row.height


async def known(session: AsyncSession, project: str, digests: Iterable[str]) -> dict[str, AssetRow]:
    """Those of the assets that the project has."""
    return {row.digest: row for row in await _in_chunks(session, AssetRow, "digest", digests, project=project)}


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
    same = (col(AssetRow.project) == col(BesideRow.project)) & (col(AssetRow.digest) == col(BesideRow.digest))
    query = select(BesideRow, AssetRow.type).join(AssetRow, same, isouter=True)
    query = query.where(col(BesideRow.upload) == upload, col(BesideRow.path) > after)
    found = (await session.exec(query.order_by(col(BesideRow.path)).limit(most))).all()
    return [(row, kind or "") for row, kind in found]


async def brings(session: AsyncSession, upload: str, digest: str = "") -> BesideRow | None:
    """An asset that came with an upload: that of the digest, or any."""
    query = select(BesideRow).where(col(BesideRow.upload) == upload)
    query = query.where(col(BesideRow.digest) == digest) if digest else query
    return (await session.exec(query.limit(1))).first()


async def name(unit: Unit, project: str, part: str, assets: Mapping[str, Sequence[str]], bringer: str = "") -> None:
    """Puts down which assets a part names. Raises StateConflict for one that its upload did not bring.

    Parts that are made of others have no bringer; what they name is named already.
    """
    for kind, digests in assets.items():
        if bringer:
            rows = await _in_chunks(unit.session, BesideRow, "digest", digests, upload=bringer)
            if len({row.digest for row in rows}) < len(set(digests)):
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
    wanted, found, project = list(dict.fromkeys(digests)), dict[str, AssetRow](), project_of(version)
    for start in range(0, len(wanted), CHUNK):
        some = wanted[start : start + CHUNK]
        query = select(NamedRow.digest).join(PartRow, _PART)
        query = query.where(col(PartRow.owner) == version, col(NamedRow.digest).in_(some)).distinct()
        theirs = (await session.exec(query)).all()
        found |= {digest: AssetRow(project=project, digest=digest, size_bytes=0) for digest in theirs}
        found |= await known(session, project, theirs)
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
    found = await known(session, project_of(version), digests[:most])
    return [found[digest] for digest in digests[:most] if digest in found], more


async def drop(unit: Unit, upload: str) -> None:
    """Takes its assets from an upload that is over; those that nobody else names are doomed."""
    mine = select(BesideRow.digest).where(col(BesideRow.upload) == upload).distinct()
    digests = list((await unit.session.exec(mine)).all())
    await unit.session.exec(delete(BesideRow).where(col(BesideRow.upload) == upload))
    await _doom(unit, project_of(upload), digests)


async def spare(unit: Unit, blob: DoomedRow) -> bool:
    """Whether somebody names a doomed blob as an asset; where nobody does, the project has it no more."""
    if await _is_named(unit.session, blob.project, blob.digest):
        return True
    await unit.session.exec(
        delete(AssetRow).where(col(AssetRow.project) == blob.project, col(AssetRow.digest) == blob.digest)
    )
    return False


async def release(unit: Unit, blob: DoomedRow) -> None:
    """After a part is gone: what it named, and nobody else does, is doomed since it was."""
    mine = (col(NamedRow.project) == blob.project, col(NamedRow.part) == blob.digest)
    digests = list((await unit.session.exec(select(NamedRow.digest).where(*mine).distinct())).all())
    if digests:
        await unit.session.exec(delete(NamedRow).where(*mine))
        await _doom(unit, blob.project, digests, blob.since)


async def lost(unit: Unit, project: str, digest: str) -> None:
    """Puts down that the bytes of an asset are gone, so that they are asked for again."""
    await unit.session.exec(delete(AssetRow).where(col(AssetRow.project) == project, col(AssetRow.digest) == digest))


async def leftovers(session: AsyncSession) -> list[str]:
    """Uploads that are over and still have assets beside them, at most 100."""
    lives = [dataset.UPLOAD_STATE_OPEN, dataset.UPLOAD_STATE_VALIDATING]
    beside = select(BesideRow.upload).where(col(BesideRow.upload) == col(UploadRow.name)).exists()
    query = select(UploadRow.name).where(col(UploadRow.state).not_in(lives), beside)
    return list((await session.exec(query.limit(AT_A_TIME))).all())


async def _doom(unit: Unit, project: str, digests: Sequence[str], since: Any = None) -> None:
    for start in range(0, len(digests), CHUNK):
        some = digests[start : start + CHUNK]
        named = await _named(unit.session, project, some)
        for digest in set(some) - named:
            await unit.session.merge(DoomedRow(project=project, digest=digest, since=since or unit.now))


async def _named(session: AsyncSession, project: str, digests: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for row in (NamedRow, BesideRow):
        query = select(row.digest).where(col(row.project) == project, col(row.digest).in_(digests)).distinct()
        found.update((await session.exec(query)).all())
    return found


async def _is_named(session: AsyncSession, project: str, digest: str) -> bool:
    return bool(await _named(session, project, [digest]))


async def _in_chunks(session: AsyncSession, row: Any, column: str, values: Iterable[str], **equal: str) -> list[Any]:
    """The rows with one of the values in a column, and these values in others."""
    wanted, found = list(dict.fromkeys(values)), list[Any]()
    for start in range(0, len(wanted), CHUNK):
        query = select(row).where(col(getattr(row, column)).in_(wanted[start : start + CHUNK]))
        query = query.where(*(col(getattr(row, name)) == value for name, value in equal.items()))
        found += (await session.exec(query)).all()
    return found
