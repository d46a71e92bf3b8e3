"""`sluice dataset`: upload, list, show, validate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluice.cli import exits, live, screen, words
from sluice.cli.options import Session, command, group

if TYPE_CHECKING:
    from sluice.client import RowsRefused
    from sluice.dataset import v1 as dataset

app = group("dataset", "Rows to train on and to be judged by: uploaded, checked, versioned.")

Rows = Annotated[Path, typer.Argument(metavar="FILE", help="Rows as .jsonl, .json, or compressed (.gz, .zst).")]
MAX_VIOLATIONS_SHOWN = 20
SPLITS = ("train", "validation", "test")
VIOLATIONS: screen.Columns = {
    "ROW": lambda each: each.row or "file",
    "FIELD": lambda each: each.field or "(row)",
    "EXPECTED": lambda each: each.expected,
    "FOUND": lambda each: each.found,
    "REPAIR": lambda each: each.repair,
}


@command(app, "upload")
def upload(
    session: Session,
    file: Rows,
    name: Annotated[str, typer.Option(help="The dataset; without it, the name of the file.")] = "",
    task_type: Annotated[str, typer.Option(help="What the rows are for; needed for a new dataset.")] = "",
    modality: Annotated[list[str] | None, typer.Option(help="text, image, audio, video; repeatable.")] = None,
    description: Annotated[str, typer.Option(help="What the rows are, for people.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="key=value to find it by; repeatable.")] = None,
) -> int:
    """Upload a file as the next version of a dataset.

    The same file again gives the version it made before; an upload that broke off goes on where it stopped.
    Rows that break the rules of the task type are shown with row, field and repair, and no version is made.
    """
    from sluice.client import RowsRefused

    name = name or file.name.partition(".")[0]
    try:
        with session.traced("dataset upload"), live.upload_bar(session, file.name) as progress:
            version = session.client.datasets.upload(
                name=name,
                path=file,
                task_type=task_type,
                modalities=modality or [],
                description=description,
                tags=_tags(tag or []),
                progress=progress,
            )
    except RowsRefused as refused:
        return _show_refusal(session, refused)
    _show_version(session, version)
    screen.hint(session, f"train on it: sluice train --dataset {words.brief(version.name)} --model …")
    return exits.OK


@command(app, "list")
def list_(
    session: Session,
    filter: Annotated[str, typer.Option(help="Such as 'task_type = \"sft\"'.")] = "",
) -> None:
    """List the datasets of the project."""
    columns: screen.Columns = {
        "DATASET": lambda each: words.brief(each.name),
        "TASK TYPE": lambda each: each.task_type,
        "VERSIONS": lambda each: each.latest_version,
        "MODALITIES": lambda each: ", ".join(each.modalities) or "text",
        "TAGS": lambda each: ", ".join(f"{key}={value}" for key, value in sorted(each.tags.items())),
        "CHANGED": lambda each: words.when(each.update_time),
    }
    found = session.client.datasets.list(filter)
    screen.listing(
        session, found, columns, "no datasets yet; `sluice dataset upload rows.jsonl --task-type sft` makes one"
    )


@command(app, "show")
def show(
    session: Session,
    dataset: Annotated[str, typer.Argument(help="A dataset, or one version of it: bank-intents@3.")],
) -> None:
    """Show a dataset with its versions, or one version."""
    if "@" in dataset or "/versions/" in dataset:
        _show_version(session, session.client.datasets.version(dataset))
        return
    found = session.client.datasets.get(dataset)
    versions = session.client.datasets.versions(found.name, limit=20)
    columns: screen.Columns = {
        "VERSION": lambda each: words.brief(each.name),
        "ROWS": lambda each: each.row_count,
        "TRAIN": lambda each: each.split_rows["train"],
        "VALIDATION": lambda each: each.split_rows["validation"],
        "TEST": lambda each: each.split_rows["test"],
        "DIGEST": lambda each: words.digest(each.digest),
        "MADE": lambda each: words.when(each.create_time),
        "BY": lambda each: words.brief(each.creator),
    }
    fields = {
        "name": found.name,
        "display name": found.display_name,
        "description": found.description,
        "task type": found.task_type,
        "modalities": ", ".join(found.modalities),
        "tags": ", ".join(f"{key}={value}" for key, value in sorted(found.tags.items())),
        "changed": words.when(found.update_time),
    }
    screen.fields(session, found, fields, *([screen.titled("versions", versions, columns)] if versions else []))


@command(app, "validate")
def validate(
    session: Session,
    file: Rows,
    task_type: Annotated[str, typer.Option(help="The rules to check by: sft or pretrain.")] = "sft",
) -> int:
    """Check a file on this machine, without a suite; exit 2 when rows are wrong."""
    from tempfile import TemporaryFile

    from kit.rpc.errors import Invalid
    from sluice.rows import SCHEMAS, UnknownFormatError, convert

    if not file.is_file():
        raise Invalid(f"there is no file `{file}`; give the path of a file with rows, such as rows.jsonl")
    if task_type not in SCHEMAS:
        raise Invalid(f"there are no row rules for `{task_type}`; there are {', '.join(sorted(SCHEMAS))}")
    try:
        with TemporaryFile() as sink:
            outcome = convert(file, file.name, task_type, sink)
    except UnknownFormatError as error:
        raise Invalid(str(error)) from error
    if session.json:
        for violation in outcome.violations:
            screen.emit(vars(violation))
    if outcome.accepted:
        if session.json:
            screen.emit({"row_count": outcome.row_count, "split_rows": dict(outcome.split_rows)})
        splits = ", ".join(f"{count} {split}" for split, count in outcome.split_rows.items())
        screen.hint(session, f"{outcome.row_count} rows are right for {task_type} ({splits})")
        return exits.OK
    if not session.json:
        _show_violations(outcome.violations)
    count = sum(outcome.counts.values())
    exits.complain(
        f"`{file.name}` breaks the rules of `{task_type}` in {count} place{'s' * (count != 1)}; repair them as shown"
    )
    return exits.INVALID


def _show_version(session: Session, version: dataset.DatasetVersion) -> None:
    fields = {
        "version": words.brief(version.name),
        "name": version.name,
        "task type": version.task_type,
        "rows": version.row_count,
        "splits": ", ".join(f"{version.split_rows[split]} {split}" for split in SPLITS),
        "size": words.size(version.size_bytes),
        "digest": version.digest,
        "made": words.when(version.create_time),
        "by": version.creator,
    }
    screen.fields(session, version, fields)


def _show_refusal(session: Session, refused: RowsRefused) -> int:
    if session.json:
        screen.emit(refused.upload)
    elif refused.upload.violations:
        _show_violations(refused.upload.violations)
        counts = sorted(refused.upload.violation_counts.items())
        screen.hint(session, ", ".join(f"{count} × {kind}" for kind, count in counts))
    return exits.report(refused)


def _show_violations(violations: Any) -> None:
    shown = list(violations)[:MAX_VIOLATIONS_SHOWN]
    screen.put(screen.table(shown, VIOLATIONS))
    if len(violations) > len(shown):
        screen.err().print(f"… and {len(violations) - len(shown)} more", style="dim")


def _tags(given: list[str]) -> dict[str, str]:
    from kit.rpc.errors import Invalid

    for tag in given:
        if "=" not in tag:
            raise Invalid(f"`{tag}` is no tag; write key=value, such as language=zh")
    return dict(tag.split("=", 1) for tag in given)
