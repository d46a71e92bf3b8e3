"""`sluice dataset`: upload, list, update, show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sluice.cli import completion, exits, forgetting, governance, live, rows, screen, sources, words
from sluice.cli import demands as asked
from sluice.cli.options import INTO, LOOK, Session, command, group

if TYPE_CHECKING:
    from sluice.dataset import v1 as dataset

app = group("dataset", "Rows to train on and to be judged by: uploaded, checked, versioned.")

SPLITS = ("train", "validation", "test")


@command(app, "upload", panel=INTO)
def upload(
    session: Session,
    file: rows.File,
    name: Annotated[
        str, typer.Option(help="The dataset; without it, the name of the file.", autocompletion=completion.datasets)
    ] = "",
    task_type: Annotated[str, typer.Option(help="What the rows are for; needed for a new dataset.")] = "",
    modality: Annotated[list[str] | None, typer.Option(help="text, image, audio, video; repeatable.")] = None,
    description: Annotated[str, typer.Option(help="What the rows are, for people.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="key=value to find it by; repeatable.")] = None,
    classification: Annotated[str, typer.Option(help="public, internal or sensitive; a new one is internal.")] = "",
    append: Annotated[bool, typer.Option("--append", help="Add the rows to those of the newest version.")] = False,
    sheet: rows.Sheet = "",
    map: rows.Mapping = None,
    fix: rows.Fix = False,
    on_error: Annotated[rows.OnError, typer.Option(help="What becomes of a file with wrong rows.")] = rows.OnError.fail,
    deidentify: asked.Identity = asked.Deidentify.off,
    recognizer: asked.Recognizers = None,
    keep: asked.Keep = "",
    set: asked.Set = None,
    tag_rows: asked.TagRows = None,
    max_tokens: asked.MaxTokens = 0,
    tokenizer: asked.Tokenizer = None,
    assets: rows.Assets = None,
) -> int:
    """Upload a file as the next version of a dataset.

    The same file again gives the version it made before; an upload that broke off goes on where it stopped.
    Rows that break the rules of the task type are shown with row, field and repair, and no version is made, unless
    --fix repairs them or --on-error=quarantine puts them aside.
    """
    from sluice.client import RowsRefused

    name = name or file.name.partition(".")[0]
    demands = asked.demands(deidentify, recognizer, keep, set, tag_rows, max_tokens, tokenizer)
    try:
        with session.traced("dataset upload"), live.upload_bar(session, file.name) as progress:
            version = session.client.datasets.upload(
                name=name,
                path=file,
                task_type=task_type,
                modalities=modality or [],
                description=description,
                tags=_tags(tag or []),
                classification=classification,
                append=append,
                columns=rows.mapping(map or []),
                fix=fix,
                quarantine=on_error is rows.OnError.quarantine,
                demands=demands,
                assets=assets,
                sheet=sheet,
                progress=progress,
            )
    except RowsRefused as refused:
        return rows.show_refusal(session, refused)
    show_version(session, version)
    sources.show(session, version)
    forgetting.tell_forgotten(session, version)
    if append and not map:
        rows.show_inherited(session, version)
    if fix or on_error is rows.OnError.quarantine or demands or version.identified_counts:
        rows.show_findings(session, version)
    screen.hint(session, f"train on it: sluice train --dataset {words.brief(version.name)} --model …")
    return exits.OK


@command(app, "list", panel=LOOK)
def list_(
    session: Session,
    filter: Annotated[str, typer.Option(help="Such as 'task_type = sft AND tags.language = zh'.")] = "",
    search: Annotated[
        str, typer.Option(help="Words of name, description, tags, schema; radiol* for a beginning.")
    ] = "",
    tag: Annotated[list[str] | None, typer.Option(help="key=value, or a key alone; repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0 means all.")] = 50,
) -> None:
    """List the datasets of the project, oldest first: all, or those that pass the filter, the search and each tag."""
    columns: screen.Columns = {
        "DATASET": lambda each: words.brief(each.name),
        "TASK TYPE": lambda each: each.task_type,
        "VERSIONS": lambda each: each.latest_version,
        "MODALITIES": lambda each: ", ".join(each.modalities) or "text",
        "TAGS": lambda each: ", ".join(f"{key}={value}" for key, value in sorted(each.tags.items())),
        "CLASS": _classification,
        "CHANGED": lambda each: words.when(each.update_time),
    }
    found = session.client.datasets.list(filter, limit, search=search, tags=tag or [])
    if filter or search or tag:
        screen.listing(session, found, columns, "no dataset is like that; `sluice dataset list` shows all")
        return
    screen.listing(
        session, found, columns, "no datasets yet; `sluice dataset upload rows.jsonl --task-type sft` makes one"
    )


@command(app, "update", panel=LOOK)
def update(
    session: Session,
    dataset: Annotated[str, typer.Argument(help="The dataset.", autocompletion=completion.datasets)],
    description: Annotated[str | None, typer.Option(help="What the rows are, for people; '' takes it away.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="key=value to add or change; repeatable.")] = None,
    untag: Annotated[list[str] | None, typer.Option(help="The key of a tag to take away; repeatable.")] = None,
    modality: Annotated[list[str] | None, typer.Option(help="text, image, audio, video; all there are.")] = None,
    classification: Annotated[str, typer.Option(help="public, internal or sensitive.")] = "",
    deidentify: Annotated[
        asked.Deidentify | None, typer.Option(help="What is done at least about text that identifies people.")
    ] = None,
    task_type: Annotated[str, typer.Option(help="What the rows are for; only of a dataset without a version.")] = "",
) -> None:
    """Change what is said of a dataset; what is not given stays as it is."""
    added, tags, etag = _tags(tag or []), None, ""
    if added or untag:
        present = session.client.datasets.get(dataset)
        tags = {key: value for key, value in {**present.tags, **added}.items() if key not in (untag or [])}
        etag = present.etag
    changed = session.client.datasets.update(
        dataset,
        description=description,
        modalities=modality or None,
        tags=tags,
        classification=classification,
        deidentify=deidentify.value if deidentify else None,
        task_type=task_type,
        etag=etag,
    )
    screen.fields(session, changed, _about(changed))


@command(app, "show", panel=LOOK)
def show(
    session: Session,
    dataset: Annotated[
        str, typer.Argument(help="A dataset, or one version of it: bank-intents@3.", autocompletion=completion.datasets)
    ],
) -> None:
    """Show a dataset with its versions, or one version."""
    if "@" in dataset or "/versions/" in dataset:
        show_version(session, session.client.datasets.version(dataset))
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
    screen.fields(session, found, _about(found), *([screen.titled("versions", versions, columns)] if versions else []))


def _about(found: dataset.Dataset) -> dict[str, str]:
    return {
        "name": found.name,
        "display name": found.display_name,
        "description": found.description,
        "task type": found.task_type,
        "modalities": ", ".join(found.modalities),
        "tags": ", ".join(f"{key}={value}" for key, value in sorted(found.tags.items())),
        "classification": _classification(found),
        **governance.about(found),
        "deidentify": _deidentify(found),
        "changed": words.when(found.update_time),
    }


def _classification(found: dataset.Dataset) -> str:
    from sluice.client.criteria import CLASSIFICATIONS

    return CLASSIFICATIONS.get(found.classification, "internal")


def _deidentify(found: dataset.Dataset) -> str:
    from sluice.client.demands import POLICIES

    return next(word for word, value in POLICIES.items() if value == found.deidentify)


def show_version(session: Session, version: dataset.DatasetVersion) -> None:
    """A version, field by field."""
    fields = {
        "version": words.brief(version.name),
        "name": version.name,
        "task type": version.task_type,
        "rows": version.row_count,
        "new rows": version.rows_new if version.HasField("rows_new") and version.version > 1 else None,
        "splits": ", ".join(f"{version.split_rows[split]} {split}" for split in SPLITS),
        "size": words.size(version.size_bytes),
        "read from": sources.read(version),
        "not used": sources.unused(version),
        "digest": version.digest,
        "identifies people": ", ".join(f"{each.count} × {each.kind}" for each in version.identified_counts),
        "made": words.when(version.create_time),
        "by": version.creator,
        **forgetting.fate(version),
    }
    screen.fields(session, version, fields)


def _tags(given: list[str]) -> dict[str, str]:
    from kit.rpc.errors import Invalid

    for tag in given:
        if "=" not in tag:
            raise Invalid(f"`{tag}` is no tag; write key=value, such as language=zh")
    return dict(tag.split("=", 1) for tag in given)
