"""`sluice doctor`: looks for what is wrong with an installation and says the repair; it repairs nothing itself."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from sluice.cli import exits, screen
from sluice.cli.checks import Context, Finding, all_checks
from sluice.cli.options import Session, command


def register(app: typer.Typer) -> None:
    """Adds `doctor`."""
    command(app, "doctor")(doctor)


def doctor(
    session: Session,
    grpc_port: Annotated[int, typer.Option(help="The public gRPC port `up` would take.")] = 7500,
    http_port: Annotated[int, typer.Option(help="The public HTTP port `up` would take.")] = 8080,
) -> int:
    """Look for what is wrong with this installation and say how to repair it; exit 1 when something is wrong."""
    context = Context(
        home=session.home,
        address=session.address,
        project=session.project,
        ports=(grpc_port, http_port),
        environ=dict(os.environ),
    )
    findings: list[Finding] = []
    for check in all_checks():
        findings += check(context)
    columns: screen.Columns = {
        "": lambda each: each.verdict,
        "WHAT": lambda each: each.what,
        "FOUND": lambda each: each.found,
        "REPAIR": lambda each: each.repair,
    }
    if session.json:
        for finding in findings:
            screen.emit(vars(finding))
    else:
        screen.put(screen.table(findings, columns))
    wrong = [finding.what for finding in findings if finding.verdict == "wrong"]
    if wrong:
        exits.complain(
            f"{len(wrong)} thing{'s' * (len(wrong) != 1)} wrong: {', '.join(wrong)}; the table says the repair"
        )
        return exits.FAILED
    screen.hint(session, "nothing is wrong")
    return exits.OK
