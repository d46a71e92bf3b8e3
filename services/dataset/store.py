"""The tables of the dataset service and the resources in them; what may happen to them is the domain's matter."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.rpc.errors import NotFound
from kit.rpc.names import id_of
from kit.store import ResourceRow, Resources, SearchedRow, Unit, text_index
from sluice.dataset import v1 as dataset


class DatasetRow(SearchedRow, ResourceRow, table=True):
    """A dataset."""

    __tablename__ = "dataset_dataset"
    __table_args__ = text_index.indexes("dataset_dataset")
    task_type: str = Field(index=True)
    display_name: str = Field(index=True)
    owner: str = Field(default="", index=True)
    access: int = Field(default=0, index=True)
    retention_days: int = Field(default=0, index=True)


class VersionRow(ResourceRow, table=True):
    """A version of a dataset; one upload makes at most one."""

    __tablename__ = "dataset_version"
    digest: str = Field(index=True)
    version: int = Field(index=True)
    upload: str = Field(unique=True)


class UploadRow(ResourceRow, table=True):
    """An upload."""

    __tablename__ = "dataset_upload"


#: Where the tokenizer of an upload starts among its pieces, which it is none of.
TOKENIZER = -1


class PieceRow(SQLModel, table=True):
    """A stored piece of an upload, or of what a feed gathers for one: where it starts and which blob it is."""

    __tablename__ = "dataset_piece"
    upload: str = Field(primary_key=True)
    start: int = Field(primary_key=True)
    digest: str
    size: int
    #: The blob space it lies in; empty means that of its own upload (`uploads.domain.staging`).
    space: str = ""
    #: How many rows of a feed it holds.
    row_count: int = 0


def _texts(each: dataset.Dataset) -> list[str]:
    """What full-text search looks through: name, description, tags and schema."""
    tags = (f"{key} {value}" for key, value in sorted(each.tags.items()))
    return [each.display_name, id_of(each.name), each.description, *tags, each.task_type, *each.modalities]


_COLUMNS = ("task_type", "display_name", "owner", "access", "retention_days")
#: The state, in the table alone, of a dataset that was deleted.
DELETED = 1
DATASETS = Resources(
    DatasetRow,
    dataset.Dataset,
    lambda each: {
        **{name: getattr(each, name) for name in _COLUMNS},
        "state": DELETED if each.HasField("delete_time") else 0,
    },
    enums={"classification": dataset.Classification, "access": dataset.DatasetAccess},
    texts=_texts,
    facts=("classification", "display_name", "modalities", "tags", "task_type"),
)
UPLOADS = Resources(UploadRow, dataset.Upload, enums={"state": dataset.UploadState})
#: Uploads that one look takes up; the others are taken up by the next.
AT_A_TIME = 100
_VERSIONS = Resources(
    VersionRow,
    dataset.DatasetVersion,
    lambda each: {"digest": each.digest, "version": each.version, "upload": each.upload},
)


async def insert_version(unit: Unit, version: dataset.DatasetVersion, upload: str) -> dataset.DatasetVersion:
    """Stores a version. Raises AlreadyExists when the upload has made one before."""
    version.upload = upload
    return await _VERSIONS.insert(unit, version)


async def update_version(unit: Unit, version: dataset.DatasetVersion) -> None:
    """Replaces a version that was read in this unit: rows of it were forgotten, or all are gone by age."""
    await _VERSIONS.update(unit, version)


async def versions_of(session: AsyncSession, parent: str) -> list[dataset.DatasetVersion]:
    """All versions of a dataset, oldest first."""
    return sorted(await _VERSIONS.find(session, parent=parent), key=lambda each: each.version)


async def get_version(session: AsyncSession, name: str) -> dataset.DatasetVersion:
    """The version of that name; ``…/versions/latest`` is the newest. Raises NotFound."""
    if name.endswith("/versions/latest"):
        parent = await DATASETS.get(session, name.removesuffix("/versions/latest"))
        if not parent.latest_version:
            raise NotFound(
                f"dataset `{parent.name}` has no version yet; upload a file to it", resource=("DatasetVersion", name)
            )
        name = f"{parent.name}/versions/{parent.latest_version}"
    return await _VERSIONS.get(session, name)


async def newest_upload(session: AsyncSession, parent: dataset.Dataset) -> dataset.Upload | None:
    """The upload that made the newest version of a dataset; None while there is no version."""
    if not parent.latest_version:
        return None
    newest = await get_version(session, f"{parent.name}/versions/{parent.latest_version}")
    return await UPLOADS.get(session, newest.upload)


async def page_versions(
    session: AsyncSession, parent: str, size: int, token: str
) -> tuple[list[dataset.DatasetVersion], str]:
    """One page of the versions of a dataset, newest first, and the token of the next."""
    return await _VERSIONS.page(session, parent=parent, page_size=size, page_token=token, newest_first=True)


async def pieces(session: AsyncSession, upload: str) -> list[PieceRow]:
    """All pieces of an upload, in order."""
    query = select(PieceRow).where(col(PieceRow.upload) == upload).order_by(col(PieceRow.start))
    return list((await session.exec(query)).all())


async def tokenizer(session: AsyncSession, upload: str) -> PieceRow | None:
    """Where the tokenizer of an upload is, if it has come."""
    return await session.get(PieceRow, (upload, TOKENIZER))


async def pieces_from(session: AsyncSession, upload: str, start: int) -> list[PieceRow]:
    """The pieces of an upload's file from the byte ``start`` on, in order."""
    later = select(PieceRow).where(col(PieceRow.upload) == upload, col(PieceRow.start) >= start)
    return list((await session.exec(later.order_by(col(PieceRow.start)))).all())


async def open_since(session: AsyncSession, before: datetime) -> list[dataset.Upload]:
    """The oldest uploads that still take bytes and were opened ``before``, at most 100."""
    conditions = [col(UploadRow.state) == dataset.UPLOAD_STATE_OPEN, col(UploadRow.create_time) < before]
    return (await UPLOADS.page(session, page_size=AT_A_TIME, where=conditions))[0]


async def arriving(session: AsyncSession, since: datetime) -> list[dataset.Upload]:
    """Uploads that still take bytes, and got some ``since``, at most 100."""
    conditions = [col(UploadRow.state) == dataset.UPLOAD_STATE_OPEN, col(UploadRow.update_time) > since]
    found, _ = await UPLOADS.page(session, page_size=AT_A_TIME, where=conditions)
    return [upload for upload in found if upload.committed_bytes]


async def leftovers(session: AsyncSession, of: str = "") -> list[str]:
    """Uploads, to one dataset or to all, that are over and of which there are pieces all the same, at most 100."""
    lives = [dataset.UPLOAD_STATE_OPEN, dataset.UPLOAD_STATE_VALIDATING]
    query = select(PieceRow.upload).join(UploadRow, col(UploadRow.name) == col(PieceRow.upload)).distinct()
    query = query.where(col(UploadRow.parent) == of) if of else query
    return list((await session.exec(query.where(col(UploadRow.state).not_in(lives)).limit(AT_A_TIME))).all())


async def drop_pieces(unit: Unit, upload: str) -> None:
    """Forgets the pieces of an upload."""
    await unit.session.exec(delete(PieceRow).where(col(PieceRow.upload) == upload))
