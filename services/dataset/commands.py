"""What can be done to datasets and uploads: one function an intent, inside a unit that the caller opened."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.field_mask_pb2 import FieldMask

from kit.blobs import Blob
from kit.rpc import masks
from kit.rpc.interceptors.validation import validate
from kit.store import Unit
from services.dataset import domain, parts, store
from services.dataset.checks import Outcome
from sluice.dataset import v1 as dataset


async def create_dataset(unit: Unit, parent: str, wanted: dataset.Dataset) -> dataset.Dataset:
    """Creates an empty dataset."""
    created = await store.DATASETS.insert(unit, domain.new_dataset(parent, wanted))
    unit.emit(dataset.DatasetCreated(dataset=created.name, task_type=created.task_type), created.name)
    return created


async def update_dataset(unit: Unit, wanted: dataset.Dataset, mask: FieldMask) -> dataset.Dataset:
    """Changes what people say of a dataset."""
    present = await store.DATASETS.get(unit.session, wanted.name)
    masks.apply(present, wanted, mask, domain.changeable(wanted, mask.paths))
    present.classification = present.classification or dataset.CLASSIFICATION_INTERNAL
    validate(present)
    changed = await store.DATASETS.update(unit, present, wanted.etag)
    unit.emit(dataset.DatasetUpdated(dataset=changed.name), changed.name)
    return changed


async def create_upload(unit: Unit, request: dataset.CreateUploadRequest, creator: str) -> dataset.Upload:
    """Opens an upload to a dataset that exists."""
    await store.DATASETS.get(unit.session, request.parent)
    return await store.UPLOADS.insert(unit, domain.new_upload(request, creator, unit.now))


async def append_piece(unit: Unit, name: str, offset: int, blob: Blob) -> dataset.Upload:
    """Counts a stored piece as part of an upload."""
    upload = await store.UPLOADS.get(unit.session, name)
    domain.check_open(upload, offset)
    domain.grow(upload, blob.size)
    unit.session.add(store.PieceRow(upload=name, start=offset, digest=blob.digest, size=blob.size))
    return await store.UPLOADS.update(unit, upload)


async def commit_upload(unit: Unit, name: str) -> dataset.Upload:
    """Hands a complete upload over to the checks; one that was handed over before stays as it is."""
    upload = await store.UPLOADS.get(unit.session, name)
    if upload.state in (dataset.UPLOAD_STATE_VALIDATING, dataset.UPLOAD_STATE_COMMITTED):
        return upload
    if upload.state == dataset.UPLOAD_STATE_OPEN:
        domain.check_complete(upload)
    domain.enter(upload, dataset.UPLOAD_STATE_VALIDATING)
    return await store.UPLOADS.update(unit, upload)


async def note_progress(unit: Unit, name: str, rows_checked: int) -> None:
    """Records how far the checks have come."""
    upload = await store.UPLOADS.get(unit.session, name)
    if upload.state == dataset.UPLOAD_STATE_VALIDATING:
        upload.rows_checked = rows_checked
        await store.UPLOADS.update(unit, upload)


async def expire_upload(unit: Unit, name: str) -> None:
    """Gives an unfinished upload up; nothing when it was handed over in the very last moment."""
    upload = await store.UPLOADS.get(unit.session, name)
    if upload.state == dataset.UPLOAD_STATE_OPEN:
        domain.enter(upload, dataset.UPLOAD_STATE_EXPIRED)
        await store.UPLOADS.update(unit, upload)


async def end_upload(unit: Unit, name: str, judge: Callable[[dataset.Upload], None]) -> None:
    """Records why ``judge`` refuses an upload."""
    upload = await store.UPLOADS.get(unit.session, name)
    judge(upload)
    await store.UPLOADS.update(unit, upload)
    unit.emit(dataset.UploadFailed(upload=name, violation_counts=upload.violation_counts), name)


async def commit_version(unit: Unit, name: str, outcome: Outcome) -> None:
    """Makes a version of a checked upload, whose parts are stored; one that appends does so to the newest version."""
    upload = await store.UPLOADS.get(unit.session, name)
    domain.enter(upload, dataset.UPLOAD_STATE_COMMITTED)
    parent = await store.DATASETS.get(unit.session, domain.dataset_of(name))
    base_name = f"{parent.name}/versions/{parent.latest_version}" if upload.append and parent.latest_version else ""
    base = await parts.stored(unit.session, await store.get_version(unit.session, base_name)) if base_name else []
    added = await parts.of(unit.session, name)
    domain.check_parts(added, outcome)
    version = domain.new_version(parent, upload, base_name, base, added)
    await parts.hand_over(unit, name, version.name, base)
    await store.insert_version(unit, version, name)
    parent.latest_version = version.version
    await store.DATASETS.update(unit, parent)
    upload.dataset_version = version.name
    upload.rows_checked = version.rows_added + outcome.put_aside
    domain.note_findings(upload, outcome)
    await store.UPLOADS.update(unit, upload)
    unit.emit(
        dataset.DatasetVersionCommitted(
            dataset_version=version.name,
            task_type=version.task_type,
            digest=version.digest,
            row_count=version.row_count,
            rows_added=version.rows_added,
        ),
        version.name,
    )
