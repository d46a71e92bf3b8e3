"""What can be done to datasets and uploads: one function an intent, inside a unit that the caller opened."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.field_mask_pb2 import FieldMask

from kit.blobs import Blob
from kit.rpc import masks
from kit.rpc.call import current_call
from kit.rpc.errors import StateConflict
from kit.rpc.interceptors.validation import validate
from kit.store import Unit
from services.dataset import domain, parts, store
from services.dataset.checks import Outcome
from services.dataset.feeds import commands as feeds_commands
from services.dataset.feeds.store import FEEDS
from services.dataset.governance import grants
from services.dataset.labels import Asked, built_in
from services.dataset.media import assets
from services.dataset.uploads import demands
from services.dataset.uploads import domain as uploads
from services.dataset.uploads.news import New, UncomparedError, rows_new
from sluice.dataset import v1 as dataset


async def create_dataset(unit: Unit, parent: str, wanted: dataset.Dataset, row_schema: str = "") -> dataset.Dataset:
    """Creates an empty dataset; ``row_schema`` is that of a task type of the project."""
    owner = current_call().principal.name
    new = domain.new_dataset(parent, wanted, owner, row_schema)
    for former in await store.DATASETS.find(unit.session, name=new.name, state=store.DELETED):
        domain.check_there(former)
    created = await store.DATASETS.insert(unit, new)
    unit.emit(dataset.DatasetCreated(dataset=created.name, task_type=created.task_type), created.name)
    return created


async def update_dataset(
    unit: Unit, wanted: dataset.Dataset, mask: FieldMask, asked: Asked = built_in
) -> dataset.Dataset:
    """Changes what people say of a dataset; ``asked`` is what the registry says of another task type."""
    before = await store.DATASETS.get(unit.session, wanted.name)
    present = dataset.Dataset()
    present.CopyFrom(before)
    masks.apply(present, wanted, mask, domain.changeable(wanted, mask.paths))
    grants.check_change(before, present)
    if present.task_type != before.task_type:
        present.row_schema = asked()
        await _retype(unit, before, present)
    present.classification = present.classification or dataset.CLASSIFICATION_INTERNAL
    validate(present)
    changed = await store.DATASETS.update(unit, present, wanted.etag)
    if changed.deidentify > before.deidentify:
        await feeds_commands.follow_dataset(unit, changed)
    unit.emit(dataset.DatasetUpdated(dataset=changed.name), changed.name)
    return changed


async def _retype(unit: Unit, before: dataset.Dataset, present: dataset.Dataset) -> None:
    """Gives up what is on its way into a dataset by the rules of before. Raises StateConflict where rows are in it."""
    domain.check_task_type(present.task_type, present.row_schema)
    held = "has versions" if before.latest_version else ""
    if await FEEDS.find(unit.session, parent=before.name):
        held = held or "has a feed"
    if await store.UPLOADS.find(unit.session, parent=before.name, state=dataset.UPLOAD_STATE_VALIDATING):
        held = held or "has an upload that is being checked"
    if held:
        raise StateConflict(
            f"`{before.name}` {held}, and only the task type of an empty dataset may change; choose another name",
            resource=("Dataset", before.name),
        )
    for upload in await store.UPLOADS.find(unit.session, parent=before.name, state=dataset.UPLOAD_STATE_OPEN):
        uploads.enter(upload, dataset.UPLOAD_STATE_EXPIRED)
        await store.UPLOADS.update(unit, upload)


async def create_upload(unit: Unit, request: dataset.CreateUploadRequest, creator: str) -> dataset.Upload:
    """Opens an upload to a dataset that exists; what it asks of its rows was checked before."""
    parent = await store.DATASETS.get(unit.session, request.parent)
    domain.check_there(parent)
    like = await store.newest_upload(unit.session, parent) if request.append and not request.columns else None
    upload = await store.UPLOADS.insert(unit, uploads.new_upload(request, parent, creator, unit.now, like))
    unit.emit(dataset.UploadCreated(upload=upload.name), upload.name)
    return upload


async def append_piece(unit: Unit, name: str, offset: int, blob: Blob) -> dataset.Upload:
    """Counts a stored piece as part of an upload."""
    upload = await store.UPLOADS.get(unit.session, name)
    uploads.check_open(upload, offset)
    uploads.grow(upload, blob.size)
    unit.session.add(store.PieceRow(upload=name, start=offset, digest=blob.digest, size=blob.size))
    return await store.UPLOADS.update(unit, upload)


async def keep_tokenizer(unit: Unit, name: str, blob: Blob) -> dataset.Upload:
    """Makes a stored tokenizer that of an upload; nothing when it has one."""
    upload = await store.UPLOADS.get(unit.session, name)
    demands.check_tokenizer_wanted(upload, blob.digest)
    if await store.tokenizer(unit.session, name) is None:
        row = store.PieceRow(upload=name, start=store.TOKENIZER, digest=blob.digest, size=blob.size)
        unit.session.add(row)
    return await store.UPLOADS.update(unit, upload)


async def commit_upload(unit: Unit, name: str) -> dataset.Upload:
    """Hands a complete upload over to the checks; one that was handed over before stays as it is."""
    upload = await store.UPLOADS.get(unit.session, name)
    if upload.state in (dataset.UPLOAD_STATE_VALIDATING, dataset.UPLOAD_STATE_COMMITTED):
        return upload
    if upload.state == dataset.UPLOAD_STATE_OPEN:
        uploads.check_complete(upload)
        demands.check_tokenizer(upload, await store.tokenizer(unit.session, name) is not None)
    uploads.enter(upload, dataset.UPLOAD_STATE_VALIDATING)
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
        uploads.enter(upload, dataset.UPLOAD_STATE_EXPIRED)
        await store.UPLOADS.update(unit, upload)


async def end_upload(unit: Unit, name: str, judge: Callable[[dataset.Upload], None]) -> None:
    """Records why ``judge`` refuses an upload."""
    upload = await store.UPLOADS.get(unit.session, name)
    judge(upload)
    await store.UPLOADS.update(unit, upload)
    if upload.feed:
        await feeds_commands.settle_upload(unit, upload)
    unit.emit(dataset.UploadFailed(upload=name, violation_counts=upload.violation_counts), name)


async def commit_version(
    unit: Unit,
    name: str,
    outcome: Outcome,
    digest: str = "",
    new: New | None = None,
    compared: str = "",
    deidentified: dataset.Deidentify = dataset.DEIDENTIFY_UNSPECIFIED,
) -> None:
    """Makes a version of a checked upload, whose parts are stored; one that appends does so to the newest version.

    ``digest`` is that of the bytes that were read, for an upload that had none announced. ``new`` tells how many rows
    the newest version has not; raises UncountedError where that is wanted. ``compared`` is the version that was the
    newest when ids were compared; raises UncomparedError where rows are appended to another by now. ``deidentified`` is
    what was done about what identifies people; raises StateConflict where the dataset asks for more by now.
    """
    upload = await store.UPLOADS.get(unit.session, name)
    upload.digest = upload.digest or digest
    uploads.enter(upload, dataset.UPLOAD_STATE_COMMITTED)
    parent = await store.DATASETS.get(unit.session, uploads.dataset_of(name))
    domain.check_policy(parent, deidentified)
    newest = f"{parent.name}/versions/{parent.latest_version}" if parent.latest_version else ""
    base_name = newest if upload.append else ""
    if base_name != compared:
        raise UncomparedError(base_name, compared)
    base = await parts.stored(unit.session, await store.get_version(unit.session, base_name)) if base_name else []
    added = await parts.of(unit.session, name)
    uploads.check_parts(added, outcome)
    domain.show_media(parent, await assets.kinds_of(unit.session, name))
    uploads.note_findings(upload, outcome)
    version = domain.new_version(parent, upload, base_name, base, added, rows_new(newest, outcome.row_count, new))
    domain.note_columns(version, outcome)
    await parts.hand_over(unit, name, version.name, base)
    await store.insert_version(unit, version, name)
    parent.latest_version = version.version
    await store.DATASETS.update(unit, parent)
    upload.dataset_version = version.name
    upload.rows_checked = version.rows_added + outcome.put_aside + outcome.filtered + outcome.forgotten
    await store.UPLOADS.update(unit, upload)
    if upload.feed:
        await feeds_commands.settle_upload(unit, upload)
    if version.version == 1:
        await feeds_commands.follow_first(unit, upload)
    unit.emit(
        dataset.DatasetVersionCommitted(
            dataset_version=version.name,
            task_type=version.task_type,
            digest=version.digest,
            row_count=version.row_count,
            rows_added=version.rows_added,
            rows_new=version.rows_new if version.HasField("rows_new") else None,
        ),
        version.name,
    )
