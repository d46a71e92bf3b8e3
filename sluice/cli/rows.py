"""Rows on the command line: the files they come in, what is wrong with them, and what was put aside."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluice.cli import exits, screen, words
from sluice.cli.options import Session, command

if TYPE_CHECKING:
    from sluice.client import RowsRefused
    from sluice.dataset import v1 as dataset

MAX_VIOLATIONS_SHOWN = 20
VIOLATIONS: screen.Columns = {
    "ROW": lambda each: each.row or "file",
    "FIELD": lambda each: each.field or "(row)",
    "EXPECTED": lambda each: each.expected,
    "FOUND": lambda each: each.found,
    "REPAIR": lambda each: each.repair,
}


class OnError(Enum):
    """What becomes of a file with wrong rows."""

    fail = "fail"
    quarantine = "quarantine"


File = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="Rows as .jsonl, .json, .csv, .tsv (also .gz, .zst), .parquet, .arrow, .xlsx."),
]
Mapping = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        help="What a name in the file means: findings=prompt, patient_id=group (never in two splits); repeatable.",
    ),
]
Fix = Annotated[bool, typer.Option("--fix", help="Make the repairs that are proposed.")]


def add_to(app: typer.Typer) -> None:
    """Adds the commands to those of `sluice dataset`."""
    command(app, "validate")(validate)
    command(app, "quarantine")(quarantine)


def validate(
    session: Session,
    file: File,
    task_type: Annotated[
        str, typer.Option(help="The rules to check by: sft, pretrain, dpo, kto, embedding, …")
    ] = "sft",
    map: Mapping = None,
    fix: Fix = False,
) -> int:
    """Check a file on this machine, without a suite; exit 2 when rows are wrong."""
    from kit.rpc.errors import Invalid
    from sluice.rows import ROWS_OF_TASK, UnknownFormatError
    from sluice.rows.checking import Rules
    from sluice.rows.convert import convert

    if not file.is_file():
        raise Invalid(f"there is no file `{file}`; give the path of a file with rows, such as rows.jsonl")
    if task_type not in ROWS_OF_TASK:
        raise Invalid(f"there are no row rules for `{task_type}`; there are {', '.join(sorted(ROWS_OF_TASK))}")
    try:
        with file.open("rb") as source:
            outcome = convert(source, file.name, Rules(ROWS_OF_TASK[task_type], mapping(map or []), fix))
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
        _show_fixed(session, outcome.fixed)
        return exits.OK
    if not session.json:
        show_violations(outcome.violations)
    count = sum(outcome.counts.values())
    exits.complain(
        f"`{file.name}` breaks the rules of `{task_type}` in {count} place{'s' * (count != 1)}; repair them as shown"
    )
    return exits.INVALID


def quarantine(
    session: Session,
    version: Annotated[str, typer.Argument(help="The version whose file had wrong rows: bank-intents@3.")],
    output: Annotated[Path | None, typer.Option(help="Where to; without it, the terminal.")] = None,
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

    for each in given:
        if not all(each.partition("=")):
            raise Invalid(f"`{each}` maps nothing; write name=meaning, such as findings=prompt")
    return dict(each.split("=", 1) for each in given)


def show_findings(session: Session, version: dataset.DatasetVersion) -> None:
    """What was repaired in the file of a version, and put aside."""
    made_of = session.client.datasets.upload_of(version.name)
    _show_fixed(session, made_of.fixed_counts)
    if made_of.quarantined_rows:
        show = f"sluice dataset quarantine {words.brief(version.name)}"
        screen.hint(session, f"{made_of.quarantined_rows} rows were wrong and put aside: {show}")


def _show_fixed(session: Session, fixed: Any) -> None:
    if fixed:
        kinds = ", ".join(f"{count} × {kind}" for kind, count in sorted(fixed.items()))
        screen.hint(session, f"repaired: {kinds}")


def show_refusal(session: Session, refused: RowsRefused) -> int:
    """Why a file was refused; the exit code."""
    if session.json:
        screen.emit(refused.upload)
    elif refused.upload.violations:
        show_violations(refused.upload.violations)
        counts = sorted(refused.upload.violation_counts.items())
        screen.hint(session, ", ".join(f"{count} × {kind}" for kind, count in counts))
    return exits.report(refused)


def show_violations(violations: Any) -> None:
    """The first of them as a table."""
    shown = list(violations)[:MAX_VIOLATIONS_SHOWN]
    screen.put(screen.table(shown, VIOLATIONS))
    if len(violations) > len(shown):
        screen.err().print(f"… and {len(violations) - len(shown)} more", style="dim")
