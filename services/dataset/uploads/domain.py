"""What an upload is and may become; pure, time is an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from kit.rpc.errors import Invalid, StateConflict
from kit.rpc.names import id_of, parent_of, project_of, uuid7
from services.dataset.checks.wire import Outcome
from services.dataset.domain import note_columns
from services.dataset.parts import PartRow
from services.dataset.store import PieceRow
from services.dataset.uploads import demands
from services.dataset.uploads.chunks import wrong_offset
from sluice import lifecycle
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.rows import UnknownFormatError, check_file_name
from sluice.rows.meanings import check_meanings
from sluice.types import v1 as types

UPLOAD_LIVES = timedelta(days=7)
VIOLATIONS_KEPT = 100


def new_upload(
    request: dataset.CreateUploadRequest,
    parent: dataset.Dataset,
    creator: str,
    now: datetime,
    like: dataset.Upload | None = None,
) -> dataset.Upload:
    """An open upload of the file that was announced, with the columns of the one that it is ``like``, if any.

    Raises Invalid for a format that is not read, and a meaning that there is not.
    """
    check_meanings(request.columns)
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
    if like is not None and like.columns:
        upload.columns.update(like.columns)
        upload.columns_from = like.dataset_version
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
    note_columns(upload, outcome)
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
