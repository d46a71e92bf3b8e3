"""`sluice gate policies`: list, show, create, update."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sluice.cli import screen, words
from sluice.cli.options import Session, command, group

if TYPE_CHECKING:
    from sluice.registry import v1 as registry

app = group("policies", "Gate policies: the criteria by name. A model or a job says which one judges it.")

Policy = Annotated[str, typer.Argument(metavar="POLICY", help="The id of a policy, such as no-regression.")]
File = Annotated[
    Path,
    typer.Option("--file", "-f", help="A GatePolicy as YAML, fields as in the contract; so is `show --json`."),
]


@command(app, "list")
def list_(session: Session) -> None:
    """List the policies of the project, built-in ones included."""
    columns: screen.Columns = {
        "POLICY": lambda each: words.brief(each.name),
        "CRITERIA": lambda each: "  ".join(criterion(one) for one in each.criteria),
        "ROWS": lambda each: each.min_rows,
        "APPROVALS": lambda each: each.approvals_required,
        "PARITY": lambda each: each.parity_required,
        "CREATED": created,
    }
    screen.listing(session, session.client.gate_policies.list(), columns, "no policies")


@command(app, "show")
def show(session: Session, policy: Policy) -> None:
    """Show what a policy asks of a version."""
    _show(session, session.client.gate_policies.get(policy))


@command(app, "create")
def create(session: Session, policy: Policy, file: File) -> None:
    """Create a policy from a file; `sluice train --gate-policy` and `models import` take its id."""
    _show(session, session.client.gate_policies.create(policy, _read(file)))


@command(app, "update")
def update(session: Session, policy: Policy, file: File) -> None:
    """Replace a policy by a file, for versions that the gate has yet to decide on; an `etag` in it is held to."""
    _show(session, session.client.gate_policies.update(policy, _read(file)))


def criterion(value: registry.Criterion) -> str:
    """`exact_match ≥ incumbent − 0.01`."""
    match value.WhichOneof("rule"):
        case "at_least":
            return f"{value.metric} ≥ {value.at_least:g}"
        case "at_most":
            return f"{value.metric} ≤ {value.at_most:g}"
    return f"{value.metric} ≥ incumbent − {value.not_below_incumbent_by:g}"


def created(policy: registry.GatePolicy) -> str:
    """When, or that it was there from the start."""
    return words.when(policy.create_time) or "built in"


def _read(file: Path) -> registry.GatePolicy:
    from sluice.client import files
    from sluice.registry import v1 as registry

    return files.read(file, registry.GatePolicy())


def _show(session: Session, policy: registry.GatePolicy) -> None:
    fields = {
        "policy": words.brief(policy.name),
        "description": policy.description,
        "criteria": "\n".join(map(criterion, policy.criteria)) or "none",
        "rows": f"at least {policy.min_rows}" if policy.min_rows else "any number",
        "parity": "the engine must agree with the recipe" if policy.parity_required else "not asked",
        "approvals": f"{policy.approvals_required} after a PASS" if policy.approvals_required else "none",
        "created": created(policy),
        "etag": policy.etag,
    }
    screen.fields(session, policy, fields)
