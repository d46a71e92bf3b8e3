"""`sluice deployments`: which versions are in an engine, and why one is not."""

from __future__ import annotations

from typing import Annotated

import typer

from sluice.cli import screen, words
from sluice.cli.options import Session, command, group

app = group("deployments", "Deployments: which versions are in an engine, and where.")


@command(app, "list")
def list_(
    session: Session,
    filter: Annotated[str, typer.Option(help="Such as 'state = \"FAILED\"'.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many; 0 means all.")] = 50,
) -> None:
    """List the deployments of the project, newest first."""
    columns: screen.Columns = {
        "DEPLOYMENT": lambda each: words.brief(each.name),
        "VERSION": lambda each: words.brief(each.model_version),
        "STATE": lambda each: words.deployment_state(each.state),
        "HOST": lambda each: each.host,
        "ENGINE": lambda each: each.engine,
        "RESTARTS": lambda each: each.restarts,
        "WHY": lambda each: each.failure.message,
        "CHANGED": lambda each: words.when(each.update_time),
    }
    empty = "no deployments yet; a version gets one when it is judged or rolled out"
    screen.listing(session, session.client.deployments.list(filter, limit), columns, empty)
