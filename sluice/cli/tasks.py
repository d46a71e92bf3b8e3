"""`sluice tasks`: list, show, new, approve, retire."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sluice.cli import exits, screen, words
from sluice.cli.options import Session, command, group

if TYPE_CHECKING:
    from sluice.registry import v1 as registry

app = group("tasks", "Task types: what rows, jobs and models are of; a project's own extend one that is there.")

Task = Annotated[str, typer.Argument(metavar="TASK", help="A task type, such as sft or radiology-report.")]


@command(app, "list")
def list_(session: Session) -> None:
    """List the task types of the project, built-in ones included."""
    columns: screen.Columns = {
        "TASK": lambda each: words.brief(each.name),
        "STATE": lambda each: words.task_type_state(each.state),
        "EXTENDS": lambda each: each.extends,
        "RECIPE": lambda each: each.recipe,
        "METRICS": lambda each: ", ".join(each.metrics),
        "GATE POLICY": lambda each: each.gate_policy,
        "SUBMITS": submitters,
        "CHANGED": created,
    }
    screen.listing(session, session.client.task_types.list(), columns, "no task types")


@command(app, "show")
def show(session: Session, task: Task) -> None:
    """Show what a task type decides, and who may submit jobs with it."""
    _show(session, session.client.task_types.get(task))


@command(app, "new")
def new(
    session: Session,
    task: Annotated[str, typer.Argument(metavar="TASK", help="Its name: lower-case words with hyphens.")],
    extends: Annotated[str, typer.Option(help="What it is a kind of, such as sft or another approved one.")] = "",
    description: Annotated[str, typer.Option(help="What it is for, in a sentence.")] = "",
    metric: Annotated[list[str] | None, typer.Option(help="In place of those it would have; repeatable.")] = None,
    suite_max_rows: Annotated[int, typer.Option(help="At most so many rows are asked; 0: as before.")] = 0,
    suite_max_tokens: Annotated[int, typer.Option(help="Tokens an answer may have; 0: as before.")] = 0,
    gate_policy: Annotated[str, typer.Option(help="Such as strict, of `sluice gate policies`.")] = "",
    submit_role: Annotated[
        list[str] | None, typer.Option(help="A role that may submit jobs with it; repeatable.")
    ] = None,
    submit_key: Annotated[list[str] | None, typer.Option(help="A key that may; repeatable.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A TaskType as YAML, for all of this and for defaults.")
    ] = None,
) -> None:
    """Propose a task type for the project; it has what it extends has, but for what is said here."""
    wanted = _read(file) if file else None
    made = session.client.task_types.propose(
        task,
        extends,
        wanted=wanted,
        description=description,
        metrics=metric or (),
        suite_max_rows=suite_max_rows,
        suite_max_tokens=suite_max_tokens,
        gate_policy=gate_policy,
        submit_roles=submit_role or (),
        submit_keys=submit_key or (),
    )
    _show(session, made)
    screen.hint(session, f"another person with the role approver lets it be used: sluice tasks approve {task}")


@command(app, "approve")
def approve(
    session: Session,
    task: Task,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    etag: Annotated[str, typer.Option(help="Approve what `sluice tasks show` showed with it, and do not ask.")] = "",
) -> int:
    """Give this key's approval to a task type that another one proposed: to what is shown, and to nothing newer."""
    if not etag:
        proposed = session.client.task_types.get(task)
        if not session.json:
            _show(session, proposed)
        if not _confirmed(task, proposed.etag):
            return exits.CONFLICT
        etag = proposed.etag
    found = session.client.task_types.approve(task, etag, reason)
    _show(session, found)
    screen.hint(session, f"rows come in now: sluice dataset upload FILE --task-type {words.brief(found.name)}")
    return exits.OK


@command(app, "retire")
def retire(session: Session, task: Task, reason: Annotated[str, typer.Option(help="Why.", show_default=False)]) -> None:
    """End new uploads and jobs with a task type, and what exists goes on; or decline one that is proposed."""
    _show(session, session.client.task_types.retire(task, reason))


def submitters(task_type: registry.TaskType) -> str:
    """Who may submit jobs with it: roles, then keys."""
    from sluice.types import v1 as types

    roles = [words.state(types.Role, role, "ROLE_").lower() for role in task_type.submit_roles]
    return ", ".join([*roles, *map(words.brief, task_type.submit_principals)]) or "who may submit jobs"


def created(task_type: registry.TaskType) -> str:
    """When it last changed, or that it was there from the start."""
    return words.when(task_type.update_time) or "built in"


def _confirmed(task: str, etag: str) -> bool:
    """Asks; raises Invalid where there is nobody to answer."""
    from kit.rpc.errors import Invalid

    try:
        return typer.confirm("approve this?", err=True)
    except typer.Abort:
        raise Invalid(f"nobody approved it; without a question: sluice tasks approve {task} --etag {etag}") from None


def _read(file: Path) -> registry.TaskType:
    from sluice.client import files
    from sluice.registry import v1 as registry

    return files.read(file, registry.TaskType())


def _defaults(task_type: registry.TaskType) -> str:
    """`learning_rate 0.0002  max_length 512`."""
    from google.protobuf.json_format import MessageToDict

    told = MessageToDict(task_type.defaults, preserving_proto_field_name=True)
    return "  ".join(f"{key} {value}" for key, value in {**told.pop("optimization", {}), **told}.items())


def _show(session: Session, found: registry.TaskType) -> None:
    by = words.brief(found.approval.principal)
    fields = {
        "task": words.brief(found.name),
        "state": words.task_type_state(found.state),
        "extends": found.extends,
        "description": found.description,
        "rows": found.row_schema,
        "recipe": found.recipe,
        "defaults": _defaults(found),
        "metrics": ", ".join(found.metrics),
        "suite": f"{found.suite_max_rows or 'all'} rows, {found.suite_max_tokens} tokens an answer",
        "gate policy": found.gate_policy,
        "interface": found.interface,
        "submits": submitters(found),
        "proposed by": words.brief(found.creator),
        "approved by": f"{by} ({found.approval.reason})" if by and found.approval.reason else by,
        "because": found.reason,
        "changed": created(found),
        "etag": found.etag,
    }
    screen.fields(session, found, fields)
