"""What a dataset and a version are and may become; pure, time is an argument."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from kit.rpc.errors import Invalid, StateConflict
from kit.rpc.names import id_of, slug
from services.dataset import parts
from services.dataset.checks.wire import Outcome
from services.dataset.parts import PartRow
from sluice.dataset import v1 as dataset
from sluice.rows import ROWS_OF_TASK, SPLITS


def new_dataset(parent: str, wanted: dataset.Dataset, owner: str = "", row_schema: str = "") -> dataset.Dataset:
    """A dataset as its owner wants it, under the slug of its name. Raises Invalid for an unknown task type.

    ``row_schema`` is that of a task type of the project.
    """
    if id_of(parent) == "-":
        raise Invalid(
            "a dataset lies in one project and `projects/-` means all; name one",
            violations=[("parent", "is no project")],
        )
    check_task_type(wanted.task_type, row_schema)
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
        row_schema=row_schema,
    )


def schema_of(of: dataset.Dataset) -> str:
    """The row schema of a dataset."""
    return of.row_schema or ROWS_OF_TASK[of.task_type]


def check_task_type(task_type: str, row_schema: str = "") -> None:
    """Raises Invalid for a task type that is neither built in nor, as its ``row_schema`` would tell, of the project."""
    if not row_schema and task_type not in ROWS_OF_TASK:
        known = ", ".join(f"`{name}`" for name in sorted(ROWS_OF_TASK))
        raise Invalid(
            f"task_type `{task_type}` is not known; it is one of {known}, or one of the project: `sluice tasks list`",
            violations=[("dataset.task_type", "is not known")],
        )


def check_there(of: dataset.Dataset) -> None:
    """Raises StateConflict for a dataset that was deleted."""
    if of.HasField("delete_time"):
        raise StateConflict(
            f"`{of.name}` was deleted on {of.delete_time.ToDatetime():%Y-%m-%d}, and its name stays with what models "
            "saw of it; choose another name",
            resource=("Dataset", of.name),
        )


def changeable(wanted: dataset.Dataset, asked: Collection[str]) -> list[str]:
    """The fields that people may change; a caller who names none and gives no classification, say, leaves that one.

    Else whoever does not know such a field would, by changing another, open what is sensitive to more people.
    """
    fields = ["description", "modalities", "tags"]
    guarding = ["classification", "deidentify", "owner", "access", "retention_days"]
    guarding += ["task_type"] if asked else []
    return fields + [name for name in guarding if asked or getattr(wanted, name)]


def check_policy(parent: dataset.Dataset, deidentified: dataset.Deidentify) -> None:
    """Raises StateConflict when a dataset asks for more than was done about what identifies people: it was changed."""
    if parent.deidentify > deidentified:
        raise StateConflict(f"`{parent.name}` asks by now for more de-identification; the rows are checked again")


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


def note_columns(of: dataset.DatasetVersion | dataset.Upload, outcome: Outcome) -> None:
    """Puts down what the columns of the rows of a version, or of an upload that is refused, were read from."""
    of.columns_read.extend(dataset.ColumnRead(column=name, names=outcome.read[name]) for name in outcome.read)
    of.names_unused.extend(outcome.unused)
    of.names_unused_more = outcome.unused_more
    of.sheets_unread = outcome.sheets_unread


def show_media(parent: dataset.Dataset, kinds: Iterable[str]) -> None:
    """Puts what rows of a new version name, such as `images`, among the modalities of its dataset."""
    found = [kind.removesuffix("s") for kind in kinds]
    parent.modalities.extend(modality for modality in found if modality not in parent.modalities)
