"""`sluice endpoints`: list, show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sluice.cli import rollouts, screen, words
from sluice.cli.options import Session, command, group

if TYPE_CHECKING:
    from sluice.gateway import v1 as gateway

app = group("endpoints", "Endpoints: the model names that applications call.")


@command(app, "list")
def list_(session: Session) -> None:
    """List the endpoints of the project with who serves them."""
    columns: screen.Columns = {
        "ENDPOINT": lambda each: words.brief(each.name),
        "INTERFACE": lambda each: each.interface,
        "SERVED BY": route,
        "ROLLOUT": lambda each: words.brief(each.active_rollout),
        "CHANGED": lambda each: words.when(each.update_time),
    }
    empty = "no endpoints yet; the first approved version of a model makes its own"
    screen.listing(session, session.client.endpoints.list(), columns, empty)


@command(app, "show")
def show(session: Session, endpoint: Annotated[str, typer.Argument(help="The id of an endpoint.")]) -> None:
    """Show an endpoint: who serves it, how new versions are let in, its last rollouts."""
    found = session.client.endpoints.get(endpoint)
    fields = {
        "endpoint": words.brief(found.name),
        "name": found.name,
        "interface": found.interface,
        "served by": route(found) or "nobody yet",
        "plan": rollouts.plan(found.rollout_plan),
        "rollout": words.brief(found.active_rollout),
        "changed": words.when(found.update_time),
    }
    last = session.client.rollouts.list(found.name, limit=5)
    columns = {key: value for key, value in rollouts.COLUMNS.items() if key != "ENDPOINT"}
    screen.fields(session, found, fields, *([screen.titled("rollouts", last, columns)] if last else []))


def route(endpoint: gateway.Endpoint) -> str:
    """`bank-bot@2 90 %, bank-bot@3 10 %`."""
    return ", ".join(f"{words.brief(arm.model_version)} {arm.weight_percent} %" for arm in endpoint.route)
