"""Rows on the command line: the files they come in, what is wrong with them, and what was put aside."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluice.cli import completion, exits, screen, sources, violations, words
from sluice.cli import demands as asked
from sluice.cli.options import INTO, Session, command

if TYPE_CHECKING:
    from sluice.client import RowsRefused
    from sluice.dataset import v1 as dataset
    from sluice.rows.convert import Outcome
    from sluice.rows.stacks import Beside


class OnError(Enum):
    """What becomes of a file with wrong rows."""

    fail = "fail"
    quarantine = "quarantine"


File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="Rows as .jsonl, .json, .csv, .tsv (also .gz, .zst), .parquet, .arrow, .xlsx; with images in .zip, .tar.",
    ),
]
Mapping = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        help="What a name in the file means: findings=prompt, patient_id=group (never in two splits); repeatable.",
    ),
]
Assets = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Where the images and sounds lie that rows name by path; sent along."),
]
Sheet = Annotated[str, typer.Option(help="Of an Excel workbook another sheet than the first, by its name.")]
Fix = Annotated[bool, typer.Option("--fix", help="Make the repairs that are proposed.")]


def add_to(app: typer.Typer) -> None:
    """Adds the commands to those of `sluice dataset`."""
    command(app, "validate", panel=INTO)(validate)
    command(app, "quarantine", panel=INTO)(quarantine)


def validate(
    session: Session,
    file: File,
    task_type: Annotated[
        str, typer.Option(help="The rules to check by: sft, pretrain, dpo, kto, embedding, …")
    ] = "sft",
    sheet: Sheet = "",
    map: Mapping = None,
    fix: Fix = False,
    on_error: Annotated[OnError, typer.Option(help="What an upload would do with wrong rows.")] = OnError.fail,
    deidentify: asked.Identity = asked.Deidentify.off,
    recognizer: asked.Recognizers = None,
    keep: asked.Keep = "",
    set: asked.Set = None,
    tag_rows: asked.TagRows = None,
    max_tokens: asked.MaxTokens = 0,
    tokenizer: asked.Tokenizer = None,
    assets: Assets = None,
) -> int:
    """Check a file on this machine, without a suite; exit 2 when rows are wrong.

    With --on-error=quarantine it is counted which an upload would put aside; exit 2 when no row would be left.
    """
    from kit.rpc.errors import Invalid
    from sluice.client.sheets import alone
    from sluice.client.uploads import check_path
    from sluice.rows import ROWS_OF_TASK, UnknownFormatError
    from sluice.rows.checking import Rules
    from sluice.rows.convert import convert
    from sluice.rows.names import is_archive

    check_path(file)
    schema = ROWS_OF_TASK.get(task_type) or _schema_of(session, task_type)
    demands = asked.demands(deidentify, recognizer, keep, set, tag_rows, max_tokens, tokenizer)
    rules = Rules(schema, mapping(map or []), fix, on_error is OnError.quarantine, demands)
    try:
        if assets is not None and is_archive(file.name):
            raise Invalid(f"`{file}` has its images in it; give a folder of assets beside a file of rows alone")
        with alone(file, sheet) as one, one.open("rb") as source:
            outcome = convert(source, one.name, rules, beside=_beside(assets, demands.deidentify))
    except UnknownFormatError as error:
        raise Invalid(str(error)) from error
    if session.json:
        for violation in outcome.violations:
            screen.emit(vars(violation))
    if outcome.put_aside and outcome.accepted and not session.json:
        violations.show(session, outcome.violations, outcome.counts, fixed=fix, aside=outcome.put_aside)
    if outcome.accepted:
        told = sources.version_of(task_type, outcome.sources, outcome.split_rows)
        if session.json:
            screen.emit(_as_json(outcome, told))
        violations.show_right(session, outcome.row_count, task_type, outcome.split_rows)
        sources.show(session, told)
        found = [(*place, count) for place, count in outcome.identified.items()]
        violations.show_done(session, outcome.fixed, outcome.filtered, found, masked=demands.deidentify == "mask")
        return exits.OK
    if not session.json:
        violations.show(session, outcome.violations, outcome.counts, fixed=fix)
    sources.show(session, sources.version_of(task_type, outcome.sources, {}))
    exits.complain(violations.summary(file.name, task_type, sum(outcome.counts.values())))
    return exits.INVALID


def _schema_of(session: Session, task_type: str) -> str:
    """The row schema of a task type of the project, as the suite says. Raises Invalid where none answers."""
    from kit.rpc.errors import Fault, Invalid
    from sluice.rows import ROWS_OF_TASK

    try:
        return session.client.task_types.get(task_type).row_schema
    except Fault as fault:
        known = ", ".join(sorted(ROWS_OF_TASK))
        raise Invalid(
            f"there are no row rules for `{task_type}`; there are {known}, and no suite says more: {fault.message}"
        ) from fault


def _beside(folder: Path | None, policy: str) -> Beside:
    """The files below a folder, to be looked at when a row names them, as the policy asks."""
    from secrets import token_bytes

    from kit.rpc.errors import Invalid
    from sluice.rows.identities import naming, treatment
    from sluice.rows.media import MAX_BYTES
    from sluice.rows.shelf import Settled
    from sluice.rows.stacks import Beside

    if folder is not None and not folder.is_dir():
        raise Invalid(f"there is no folder `{folder}`; give the folder that the paths in rows start in")
    paths: Iterable[Path] = [] if folder is None else (file for file in folder.rglob("*") if file.is_file())
    files = {file.relative_to(folder or file).as_posix(): file for file in paths}

    def fetch(path: str) -> Settled:
        with files[path].open("rb") as file:
            return found.settle(file.read(MAX_BYTES + 1))

    key = token_bytes(32)
    found = Beside(files, fetch, treat=treatment(policy, key), whose=naming(policy, key))
    return found


def _as_json(outcome: Outcome, told: dataset.DatasetVersion) -> dict[str, Any]:
    identified = [{"kind": kind, "field": field, "count": count} for (kind, field), count in outcome.identified.items()]
    return {
        "row_count": outcome.row_count,
        "split_rows": dict(outcome.split_rows),
        "filtered_rows": outcome.filtered,
        "quarantined_rows": outcome.put_aside,
        "identified_counts": identified,
        "columns_read": [{"column": each.column, "names": list(each.names)} for each in told.columns_read],
        "names_unused": list(told.names_unused),
        "names_unused_more": told.names_unused_more,
        "sheets_unread": told.sheets_unread,
    }


def quarantine(
    session: Session,
    version: Annotated[
        str,
        typer.Argument(
            help="The version whose file had wrong rows: bank-intents@3.", autocompletion=completion.datasets
        ),
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to; without it, the terminal.")] = None,
) -> None:
    """Download the rows that were put aside when a version was made, each with what is wrong."""
    pieces = session.client.datasets.quarantine(version)
    if output is None:
        for piece in pieces:
            sys.stdout.buffer.write(piece)  # a piece may end within a character
        return
    with output.open("wb") as file:
        for piece in pieces:
            file.write(piece)
    screen.hint(session, f"the rows are in {output}; repair them and upload them with --append")


def mapping(given: list[str]) -> dict[str, str]:
    """`findings=prompt` as what it says."""
    from kit.rpc.errors import Invalid
    from sluice.rows.meanings import check_meanings

    for each in given:
        if not all(each.partition("=")):
            raise Invalid(f"`{each}` maps nothing; write name=meaning, such as findings=prompt")
    meant = dict(each.split("=", 1) for each in given)
    check_meanings(meant)
    return meant


def show_findings(session: Session, version: dataset.DatasetVersion) -> None:
    """What was repaired in the file of a version, and put aside."""
    from sluice.dataset import v1 as contract

    made_of = session.client.datasets.upload_of(version.name)
    found = [(each.kind, each.field, each.count) for each in made_of.identified_counts]
    masked = made_of.demands.deidentify == contract.DEIDENTIFY_MASK
    violations.show_done(session, made_of.fixed_counts, made_of.filtered_rows, found, masked=masked)
    if made_of.quarantined_rows:
        show = f"sluice dataset quarantine {words.brief(version.name)}"
        asked = made_of.demands.deidentify or made_of.violation_counts.get("identifies-person", 0)
        warning = "; they are as they came, with whatever in them identifies people" if asked else ""
        screen.hint(session, f"{made_of.quarantined_rows} rows were wrong and put aside: {show}{warning}")


def show_inherited(session: Session, version: dataset.DatasetVersion) -> None:
    """What the columns of a version mean, where that was said of a version before it."""
    made_of = session.client.datasets.upload_of(version.name)
    if made_of.columns_from:
        meant = ", ".join(f"{name} → {meaning}" for name, meaning in sorted(made_of.columns.items()))
        screen.hint(session, f"columns as in {words.brief(made_of.columns_from)}: {meant}; --map says otherwise")


def show_refusal(session: Session, refused: RowsRefused) -> int:
    """Why a file was refused, and as what its names were read; the exit code."""
    upload = refused.upload
    if session.json:
        screen.emit(upload)
    elif upload.violations:
        violations.show(session, upload.violations, upload.violation_counts, fixed=upload.fix)
    if upload.columns_read and not session.json:
        task_type = session.client.datasets.get(upload.name.partition("/uploads/")[0]).task_type
        sources.show(session, sources.of_refused(upload, task_type))
    if upload.forgotten_rows:
        screen.hint(session, f"{upload.forgotten_rows} of its rows were forgotten before and left out")
    if upload.violations and violations.spoken():
        exits.complain(violations.refusal(upload.file_name, sum(upload.violation_counts.values())))
        return exits.code_of(refused)
    return exits.report(refused)
