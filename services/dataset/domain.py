"""What a dataset, an upload and a version are and may become; pure, time is an argument."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from kit.rpc.errors import Invalid, StateConflict
from kit.rpc.names import id_of, parent_of, project_of, slug, uuid7
from services.dataset import parts
from services.dataset.checks.wire import Outcome
from services.dataset.parts import PartRow
from services.dataset.store import PieceRow
from services.dataset.uploads import demands
from sluice import lifecycle
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.rows import ROWS_OF_TASK, SPLITS, UnknownFormatError, check_file_name
from sluice.types import v1 as types

UPLOAD_LIVES = timedelta(days=7)
#: Bytes that are gathered before they are written as one piece.
PIECE_BYTES = 8 * 1024 * 1024
#: Chunks of one piece: a sender of single bytes gets small pieces, and not our memory.
PIECE_CHUNKS = 1024
VIOLATIONS_KEPT = 100


def new_dataset(parent: str, wanted: dataset.Dataset, owner: str = "") -> dataset.Dataset:
    """A dataset as its owner wants it, under the slug of its name. Raises Invalid for an unknown task type."""
    if id_of(parent) == "-":
        raise Invalid(
            "a dataset lies in one project and `projects/-` means all; name one",
            violations=[("parent", "is no project")],
        )
    if wanted.task_type not in ROWS_OF_TASK:
        known = ", ".join(f"`{name}`" for name in sorted(ROWS_OF_TASK))
        raise Invalid(
            f"task_type `{wanted.task_type}` is not known; it is one of {known}",
            violations=[("dataset.task_type", "is not known")],
        )
    return dataset.Dataset(
        name=f"{parent}/datasets/{slug(wanted.display_name)}",
        display_name=wanted.display_name,
        description=wanted.description,
        task_type=wanted.task_type,
        modalities=wanted.modalities or ["text"],
        tags=wanted.tags,
        classification=wanted.classification or dataset.CLASSIFICATION_INTERNAL,
        deidentify=wanted.deidentify,
        owner=owner,
        access=wanted.access or dataset.DATASET_ACCESS_PROJECT,
        retention_days=wanted.retention_days,
    )


def changeable(wanted: dataset.Dataset, asked: Collection[str]) -> list[str]:
    """The fields that people may change; a caller who names none and gives no classification, say, leaves that one.

    Else whoever does not know such a field would, by changing another, open what is sensitive to more people.
    """
    fields = ["description", "modalities", "tags"]
    guarding = ["classification", "deidentify", "owner", "access", "retention_days"]
    return fields + [name for name in guarding if asked or getattr(wanted, name)]


def new_upload(
    request: dataset.CreateUploadRequest, parent: dataset.Dataset, creator: str, now: datetime
) -> dataset.Upload:
    """An open upload of the file that was announced. Raises Invalid for a format that is not read."""
    try:
        check_file_name(request.file_name)
    except UnknownFormatError as error:
        raise Invalid(str(error), violations=[("file_name", "is of a format that is not read")]) from None
    upload = dataset.Upload(
        name=f"{request.parent}/uploads/{uuid7()}",
        state=dataset.UPLOAD_STATE_OPEN,
        file_name=request.file_name,
        size_bytes=request.size_bytes,
        digest=request.digest,
        creator=creator,
        append=request.append,
        columns=request.columns,
        fix=request.fix,
        on_error=request.on_error or dataset.ON_ERROR_FAIL,
        demands=demands.at_least(request.demands, parent),
    )
    upload.expire_time.FromDatetime(now + UPLOAD_LIVES)
    return upload


def enter(upload: dataset.Upload, state: dataset.UploadState) -> None:
    """Moves an upload on. Raises StateConflict when its life cycle does not allow it."""
    if not lifecycle.can(lifecycle.UPLOAD, upload.state, state):
        raise StateConflict(
            f"upload `{upload.name}` is {_word(upload.state)} and cannot become {_word(state)}; open a new one"
        )
    upload.state = state


def check_open(upload: dataset.Upload, offset: int) -> None:
    """Raises StateConflict when the upload takes no bytes, or none at ``offset``."""
    if upload.state != dataset.UPLOAD_STATE_OPEN:
        raise StateConflict(f"upload `{upload.name}` is {_word(upload.state)} and takes no bytes; open a new one")
    if offset != upload.committed_bytes:
        raise wrong_offset(offset, upload.committed_bytes)


def check_takes_assets(upload: dataset.Upload) -> None:
    """Raises StateConflict when files can no more be said to lie beside those of the upload."""
    if upload.state != dataset.UPLOAD_STATE_OPEN:
        raise StateConflict(f"upload `{upload.name}` is {_word(upload.state)} and takes no assets; open a new one")


def wrong_offset(offset: int, expected: int) -> StateConflict:
    """For a chunk that does not start where the bytes before it end."""
    return StateConflict(
        f"the chunk starts at byte {offset}, but the upload goes on at {expected}; send from there",
        reason=errors.ERROR_REASON_WRONG_OFFSET,
        metadata={"committed_bytes": str(expected)},
    )


def grow(upload: dataset.Upload, size: int) -> None:
    """Counts ``size`` more stored bytes. Raises StateConflict when that is more than was announced."""
    if upload.committed_bytes + size > upload.size_bytes:
        raise StateConflict(
            f"the file was announced with {upload.size_bytes} bytes and more have come; open a new upload",
            reason=errors.ERROR_REASON_SIZE_MISMATCH,
        )
    upload.committed_bytes += size


def check_complete(upload: dataset.Upload) -> None:
    """Raises StateConflict when bytes are missing."""
    if upload.committed_bytes != upload.size_bytes:
        raise StateConflict(
            f"{upload.committed_bytes} of {upload.size_bytes} bytes have come; send the rest, then commit",
            reason=errors.ERROR_REASON_SIZE_MISMATCH,
            metadata={"committed_bytes": str(upload.committed_bytes)},
        )


def note_findings(upload: dataset.Upload, outcome: Outcome) -> None:
    """Puts down what is wrong, what was repaired and what was put aside."""
    upload.violation_counts.update(outcome.counts)
    upload.fixed_counts.update(outcome.fixed)
    upload.quarantined_rows = outcome.put_aside
    upload.filtered_rows = outcome.filtered
    upload.forgotten_rows = outcome.forgotten
    upload.identified_counts.extend(demands.identified(outcome.identified))
    upload.violations.extend(
        dataset.RowViolation(
            row=each.row,
            field=each.field,
            kind=each.kind,
            expected=each.expected,
            found=each.found,
            repair=each.repair,
            file=each.file,
        )
        for each in outcome.violations[:VIOLATIONS_KEPT]
    )


def refuse(upload: dataset.Upload, outcome: Outcome) -> None:
    """Ends an upload whose rows break the rules."""
    enter(upload, dataset.UPLOAD_STATE_FAILED)
    note_findings(upload, outcome)
    upload.quarantined_rows = 0  # nothing is kept of a file that is refused
    message = _summary(upload, outcome.counts)
    upload.failure.CopyFrom(types.Failure(reason=errors.ERROR_REASON_INVALID_ROWS, message=message))


def fail_damaged(upload: dataset.Upload) -> None:
    """Ends an upload whose stored bytes are not readable any more."""
    enter(upload, dataset.UPLOAD_STATE_FAILED)
    message = f"what was stored of `{upload.file_name}` is damaged; upload the file again"
    upload.failure.CopyFrom(types.Failure(reason=errors.ERROR_REASON_CORRUPT_BLOB, message=message))


def fail_check(upload: dataset.Upload, why: str) -> None:
    """Ends an upload whose check went beyond what a check may use."""
    enter(upload, dataset.UPLOAD_STATE_FAILED)
    message = f"`{upload.file_name}` was not checked: {why}"
    upload.failure.CopyFrom(types.Failure(reason=errors.ERROR_REASON_INVALID_ROWS, message=message))


def fail_killed(upload: dataset.Upload) -> None:
    """Ends an upload whose check the system has ended more than once."""
    enter(upload, dataset.UPLOAD_STATE_FAILED)
    message = (
        f"`{upload.file_name}` was not checked: the machine of the service ran out of memory, twice; "
        "free some there, or split the file, then upload it again"
    )
    upload.failure.CopyFrom(types.Failure(reason=errors.ERROR_REASON_OUT_OF_MEMORY, message=message))


def fail_broken(upload: dataset.Upload, trace_id: str) -> None:
    """Ends an upload whose rows the suite could not check, by its own fault."""
    enter(upload, dataset.UPLOAD_STATE_FAILED)
    message = f"checking `{upload.file_name}` met a fault of the suite; the log has it under trace id {trace_id}"
    upload.failure.CopyFrom(types.Failure(reason=errors.ERROR_REASON_INTERNAL, message=message))


def fail_checksum(upload: dataset.Upload) -> None:
    """Ends an upload whose bytes are not those that were announced."""
    enter(upload, dataset.UPLOAD_STATE_FAILED)
    message = f"`{upload.file_name}` does not have the digest that was announced; upload the file again"
    upload.failure.CopyFrom(types.Failure(reason=errors.ERROR_REASON_CHECKSUM_MISMATCH, message=message))


def check_parts(added: Sequence[PartRow], outcome: Outcome) -> None:
    """Raises StateConflict when the parts are not those of this outcome: another process checks the same upload."""
    if sum(part.rows_of() for part in added) != outcome.row_count:
        raise StateConflict("the rows that were stored are not those that were checked; they are checked again")


def new_version(
    parent: dataset.Dataset,
    upload: dataset.Upload,
    base_version: str,
    base: Sequence[PartRow],
    added: Sequence[PartRow],
    rows_new: int | None = None,
) -> dataset.DatasetVersion:
    """The version that an upload makes, the next of its dataset: the parts of the base version, then its own."""
    number, whole = parent.latest_version + 1, [*base, *added]
    return dataset.DatasetVersion(
        name=f"{parent.name}/versions/{number}",
        version=number,
        task_type=parent.task_type,
        digest=parts.digest_of(whole),
        source_digest=upload.digest,
        row_count=sum(part.rows_of() for part in whole),
        split_rows={split: sum(part.rows_of(split) for part in whole) for split in SPLITS},
        size_bytes=sum(part.size_bytes for part in whole),
        creator=upload.creator,
        base_version=base_version,
        rows_added=sum(part.rows_of() for part in added),
        rows_new=rows_new,
        upload=upload.name,
        forgotten_rows=upload.forgotten_rows,
        identified_counts=upload.identified_counts,
    )


def show_media(parent: dataset.Dataset, kinds: Iterable[str]) -> None:
    """Puts what rows of a new version name, such as `images`, among the modalities of its dataset."""
    found = [kind.removesuffix("s") for kind in kinds]
    parent.modalities.extend(modality for modality in found if modality not in parent.modalities)


def dataset_of(upload: str) -> str:
    """The dataset that an upload belongs to."""
    return parent_of(upload)


def staging(upload: str) -> str:
    """Where the pieces of an upload lie: a space of its own, so that dropping them can take nothing from others."""
    return f"{project_of(upload)}/uploads/{id_of(upload)}"


def space_of(piece: PieceRow) -> str:
    """Where the blob of a piece lies: in the space of its upload, or of a former one that its feed had to take back."""
    return piece.space or staging(piece.upload)


def _summary(upload: dataset.Upload, counts: Mapping[str, int]) -> str:
    kinds = ", ".join(f"{count} × {kind}" for kind, count in sorted(counts.items(), key=lambda item: -item[1]))
    for first in upload.violations:
        if not first.row:
            wrong = f"expected {first.expected}, found {first.found}; {first.repair}"
            return f"`{upload.file_name}` as a whole is wrong: {wrong}"
    first = upload.violations[0]
    where = f"row {first.row}" + (f", field `{first.field}`" if first.field else "")
    return f"{sum(counts.values())} rows are wrong ({kinds}); first {where}: {first.repair}"


def _word(state: int) -> str:
    return dataset.UploadState.Name(state).removeprefix("UPLOAD_STATE_")
