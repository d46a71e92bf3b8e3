"""`sluice endpoints`: list, show, create, update."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sluice.cli import rollouts, screen, words
from sluice.cli.options import Session, command, group

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from rich.console import RenderableType

    from sluice.gateway import v1 as gateway

app = group("endpoints", "Endpoints: the model names that applications call.")

PLAN = "The rollout plan"
Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="The id of an endpoint.")]
Steps = Annotated[
    str, typer.Option(metavar="PERCENT,…", help="Rising shares of the sessions: 10,50,100.", rich_help_panel=PLAN)
]
Hold = Annotated[str, typer.Option(help="How long each step lasts at least, such as 10s, 15m.", rich_help_panel=PLAN)]
MinRequests = Annotated[
    int, typer.Option(min=0, help="Answered requests of the version that each step needs.", rich_help_panel=PLAN)
]
PlanFile = Annotated[
    Path | None,
    typer.Option(
        "--plan", help="A RolloutPlan as YAML in place of the flags; it has limits too.", rich_help_panel=PLAN
    ),
]


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
def show(session: Session, endpoint: Endpoint) -> None:
    """Show an endpoint: who serves it, how new versions are let in, its last rollouts."""
    found = session.client.endpoints.get(endpoint)
    last = session.client.rollouts.list(found.name, limit=5)
    columns = {key: value for key, value in rollouts.COLUMNS.items() if key != "ENDPOINT"}
    _show(session, found, *([screen.titled("rollouts", last, columns)] if last else []))


@command(app, "create")
def create(
    session: Session,
    endpoint: Endpoint,
    interface: Annotated[str, typer.Option(help="Without it, that of the first version, such as chat.")] = "",
    steps: Steps = "",
    hold: Hold = "10s",
    min_requests: MinRequests = 20,
    plan: PlanFile = None,
) -> None:
    """Create an endpoint before its first version comes, with a rollout plan or the default of the suite."""
    wanted = _plan(steps, hold, min_requests, plan)
    _show(session, session.client.endpoints.create(endpoint, interface, wanted))


@command(app, "update")
def update(
    session: Session,
    endpoint: Endpoint,
    steps: Steps = "",
    hold: Hold = "10s",
    min_requests: MinRequests = 20,
    plan: PlanFile = None,
) -> None:
    """Change how new versions are let in; a rollout under way keeps the plan it began with."""
    from kit.rpc.errors import Invalid

    wanted = _plan(steps, hold, min_requests, plan)
    if wanted is None:
        raise Invalid("a plan is missing; give --steps 10,50,100, or --plan FILE")
    _show(session, session.client.endpoints.set_plan(endpoint, wanted))


def _plan(steps: str, hold: str, min_requests: int, file: Path | None) -> gateway.RolloutPlan | None:
    """The plan that was asked for; None where nothing was said."""
    from kit.rpc.errors import Invalid
    from sluice.client import files
    from sluice.gateway import v1 as gateway

    if file and steps:
        raise Invalid("--steps and --plan both give a plan; leave one out")
    if file:
        return files.read(file, gateway.RolloutPlan())
    if not steps:
        return None
    made = gateway.RolloutPlan()
    for weight in steps.split(","):
        if not weight.strip().isdecimal() or not 1 <= int(weight) <= 100:
            raise Invalid(f"`{steps}` are no steps; write shares in percent with commas, such as 10,50,100")
        step = made.steps.add(weight_percent=int(weight), min_requests=min_requests)
        step.hold.FromTimedelta(timedelta(seconds=words.seconds(hold)))
    return made


def _show(session: Session, found: gateway.Endpoint, *more: RenderableType) -> None:
    fields = {
        "endpoint": words.brief(found.name),
        "name": found.name,
        "interface": found.interface,
        "served by": route(found) or "nobody yet",
        "plan": rollouts.plan(found.rollout_plan),
        "limits": limits(found.rollout_plan),
        "rollout": words.brief(found.active_rollout),
        "changed": words.when(found.update_time),
    }
    columns: screen.Columns = {
        "WEIGHT": lambda each: f"{each.weight_percent} %",
        "AT LEAST": lambda each: _length(each.hold) if each.HasField("hold") else "10 s",
        "REQUESTS": lambda each: each.min_requests,
    }
    steps = found.rollout_plan.steps
    screen.fields(session, found, fields, *([screen.titled("plan", steps, columns)] if steps else []), *more)


def limits(plan: gateway.RolloutPlan) -> str:
    """What takes a version out again, and when a starved step raises an alarm, where the plan says so."""
    said = []
    if plan.HasField("max_error_rate_increase"):
        said.append(f"errors at most {plan.max_error_rate_increase:g} above the incumbent's")
    if plan.HasField("max_p95_ratio"):
        said.append(f"p95 at most {plan.max_p95_ratio:g} times the incumbent's")
    if plan.HasField("max_p95"):
        said.append(f"p95 at most {_length(plan.max_p95)}")
    if plan.HasField("starved_after"):
        said.append(f"alarm after {_length(plan.starved_after)} without enough requests")
    return "\n".join(said)


def _length(value: Duration) -> str:
    return words.duration(value.ToTimedelta().total_seconds())


def route(endpoint: gateway.Endpoint) -> str:
    """`bank-bot@2 90 %, bank-bot@3 10 %`."""
    return ", ".join(f"{words.brief(arm.model_version)} {arm.weight_percent} %" for arm in endpoint.route)
