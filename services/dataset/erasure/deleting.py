"""Deleting a dataset: all its versions go as those that are too old, and what was known of it but its rows stays."""

from __future__ import annotations

from sqlmodel.ext.asyncio.session import AsyncSession

from kit.rpc.errors import StateConflict
from kit.rpc.names import id_of
from kit.store import Unit
from services.dataset import domain, parts, store
from services.dataset.erasure import retiring
from services.dataset.erasure.domain import ERASURES
from services.dataset.feeds.store import FEEDS
from services.dataset.governance import grants, lineage
from services.dataset.uploads import domain as uploads
from sluice.dataset import v1 as dataset


async def delete(unit: Unit, request: dataset.DeleteDatasetRequest, creator: str) -> dataset.DeleteDatasetResponse:
    """Deletes a dataset. Raises NotFound, Denied, Stale, and StateConflict while something needs it."""
    of = await store.DATASETS.get(unit.session, request.name)
    grants.check_share(of)
    domain.check_there(of)
    versions = [each.name for each in await store.versions_of(unit.session, of.name)]
    await _check_unused(unit.session, of.name, versions)
    opened = await store.UPLOADS.find(unit.session, parent=of.name, state=dataset.UPLOAD_STATE_OPEN)
    if (versions or opened) and not request.force:
        raise _in_use(of.name, f"versions: {len(versions)}, open uploads: {len(opened)}", "force deletes them with it")
    for upload in opened:
        uploads.enter(upload, dataset.UPLOAD_STATE_EXPIRED)
        await store.UPLOADS.update(unit, upload)
    erasure = await retiring.let_go(unit, of.name, versions, request.reason, creator)
    await parts.drop(unit, parts.pseudonyms_of(of.name))
    of.delete_time.FromDatetime(unit.now)
    deleted = await store.DATASETS.update(unit, of, request.etag)
    unit.emit(dataset.DatasetDeleted(dataset=of.name, erasure=erasure.name, reason=request.reason), of.name)
    return dataset.DeleteDatasetResponse(dataset=deleted, erasure=erasure.name)


async def _check_unused(session: AsyncSession, of: str, versions: list[str]) -> None:
    if feeds := await FEEDS.find(session, parent=of):
        raise _in_use(of, f"its feed `{id_of(feeds[0].name)}` takes rows", "delete that first")
    if await store.UPLOADS.find(session, parent=of, state=dataset.UPLOAD_STATE_VALIDATING):
        raise _in_use(of, "an upload to it is being checked", "wait until that is over")
    if jobs := await lineage.wanted_by_jobs(session, versions):
        raise _in_use(of, f"a training job reads version {id_of(min(jobs))}", "cancel it or wait until it is over")
    if await ERASURES.find(session, parent=of, state=dataset.ERASURE_STATE_RUNNING):
        raise _in_use(of, "rows of it are being looked for to forget them", "wait until that is over")


def _in_use(of: str, why: str, repair: str) -> StateConflict:
    return StateConflict(f"`{of}` was not deleted: {why}; {repair}", resource=("Dataset", of))
