"""`sluice rollouts`: list, show, create, watch, promote, rollback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluice.cli import exits, live, screen, words
from sluice.cli.options import Session, command, group

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sluice.gateway import v1 as gateway

app = group("rollouts", "Rollouts: the way of a version to all the traffic, or back.")

Rollout = Annotated[
    str,
    typer.Argument(
        metavar="ROLLOUT",
        help="An id, the beginning of one, or an endpoint, model or version (bank-bot@3): its newest.",
    ),
]
Reason = Annotated[str, typer.Option(help="Why; kept with the rollout.")]
COLUMNS: screen.Columns = {
    "ROLLOUT": lambda each: words.brief(each.name),
    "ENDPOINT": lambda each: each.name.split("/")[3],
    "VERSION": lambda each: words.brief(each.model_version),
    "INCUMBENT": lambda each: words.brief(each.incumbent),
    "STATE": lambda each: words.rollout_state(each.state),
    "WEIGHT": lambda each: f"{weight(each)} %",
    "WHY": lambda each: each.failure.message or each.reason,
    "BEGUN": lambda each: words.when(each.create_time),
}


@command(app, "list")
def list_(
    session: Session,
    endpoint: Annotated[str, typer.Argument(help="An endpoint; - for all of them.")] = "-",
    filter: Annotated[str, typer.Option(help="Such as 'state = \"PROMOTED\"'.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many; 0 means all.")] = 50,
) -> None:
    """List rollouts, newest first."""
    empty = "no rollouts yet; a version that the gate approves gets one by itself"
    screen.listing(session, session.client.rollouts.list(endpoint, filter, limit), COLUMNS, empty)


@command(app, "show")
def show(session: Session, rollout: Rollout) -> None:
    """Show a rollout: its plan, its figures and every decision."""
    found = session.client.rollouts.get(rollout)
    fields = {
        "rollout": found.name.rsplit("/", 1)[-1],
        "endpoint": found.name.split("/")[3],
        "state": words.rollout_state(found.state),
        "version": words.brief(found.model_version),
        "incumbent": words.brief(found.incumbent) or "none",
        "plan": plan(found.plan),
        "step": found.step + 1,
        "why": found.failure.message or found.reason,
        "asked by": words.brief(found.creator) or "the gate",
        "begun": words.when(found.create_time),
    }
    more = [screen.titled("decisions", found.analysis_runs[-20:], DECISIONS)] if found.analysis_runs else []
    screen.fields(session, found, fields, *more)


@command(app, "create")
def create(
    session: Session,
    endpoint: Annotated[str, typer.Argument(help="The id of an endpoint.")],
    version: Annotated[str, typer.Argument(metavar="MODEL@N", help="An approved version: bank-bot@3.")],
) -> None:
    """Start a rollout by hand of a version that is approved; one that could not be loaded is tried again."""
    _show_change(session, session.client.rollouts.create(endpoint, version))


@command(app, "watch")
def watch(
    session: Session,
    rollout: Rollout,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait up to a minute for a rollout that is yet to come.")
    ] = False,
) -> int:
    """Follow a rollout until it is over; exit 0 when it was promoted, 1 when it was rolled back or failed."""
    from sluice.gateway import v1 as gateway

    name = live.awaited(session, lambda: session.client.rollouts.get(rollout)).name if wait else rollout
    last = live.follow(
        session,
        session.client.rollouts.watch(name),
        view=view,
        line=line,
        left=f"the rollout goes on; `sluice rollouts watch {rollout}` comes back to it",
    )
    if last.state == gateway.ROLLOUT_STATE_PROMOTED:
        return exits.OK
    why = last.failure.message or last.reason or "no reason was given"
    exits.complain(f"{words.brief(last.model_version)} ended as {words.rollout_state(last.state)}: {why}")
    return exits.FAILED


@command(app, "promote")
def promote(session: Session, rollout: Rollout, reason: Reason = "") -> None:
    """Give the version all the traffic now."""
    _show_change(session, session.client.rollouts.promote(rollout, reason))


@command(app, "rollback")
def rollback(session: Session, rollout: Rollout, reason: Reason = "") -> None:
    """Take the traffic away from the version now; when this returns, no new request reaches it."""
    _show_change(session, session.client.rollouts.rollback(rollout, reason))


DECISIONS: screen.Columns = {
    "TIME": lambda each: words.clock(each.time),
    "WEIGHT": lambda each: f"{each.weight_percent} %",
    "DECISION": lambda each: decision(each.decision),
    "REQUESTS": lambda each: pair(each, lambda figures: str(figures.requests)),
    "ERRORS": lambda each: pair(each, lambda figures: str(figures.errors)),
    "P95 MS": lambda each: pair(each, lambda figures: f"{figures.p95_ms:.0f}" if figures.HasField("p95_ms") else "–"),
    "WHY": lambda each: each.reason,
}


def decision(value: int) -> str:
    """`ADVANCE`, `HOLD` or `ROLL_BACK`."""
    from sluice.gateway import v1 as gateway

    return words.state(gateway.StepDecision, value, "STEP_DECISION_")


def pair(run: Any, figure: Any) -> str:
    """A figure of the candidate, and the incumbent's after it where there is one."""
    incumbent = f" / {figure(run.incumbent)}" if run.HasField("incumbent") else ""
    return f"{figure(run.candidate)}{incumbent}"


def weight(rollout: gateway.Rollout) -> int:
    """The share of the traffic the version has now, in percent."""
    from sluice.gateway import v1 as gateway

    if rollout.state == gateway.ROLLOUT_STATE_PROMOTED:
        return 100
    if rollout.state == gateway.ROLLOUT_STATE_PROGRESSING and rollout.step < len(rollout.plan.steps):
        return rollout.plan.steps[rollout.step].weight_percent
    return 0


def plan(value: gateway.RolloutPlan) -> str:
    """`10 → 50 → 100 %`."""
    steps = " → ".join(str(step.weight_percent) for step in value.steps)
    return f"{steps} %" if steps else "the suite's default"


def view(rollout: gateway.Rollout) -> RenderableType:
    """Weights as bars, and the last decisions below."""
    from rich.console import Group
    from rich.table import Table

    share = weight(rollout)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row(
        screen.cell(words.brief(rollout.model_version)), live.bar(share, 100, 40), screen.cell(f"{share} %"),
        screen.cell(words.rollout_state(rollout.state)), screen.cell(plan(rollout.plan)),
    )  # fmt: skip
    if rollout.incumbent:
        grid.add_row(
            screen.cell(words.brief(rollout.incumbent)), live.bar(100 - share, 100, 40, "blue"),
            screen.cell(f"{100 - share} %"), screen.cell("incumbent"),
        )  # fmt: skip
    parts: list[RenderableType] = [grid]
    if rollout.analysis_runs:
        parts += ["", screen.table(rollout.analysis_runs[-6:], DECISIONS)]
    return Group(*parts)


def line(rollout: gateway.Rollout) -> tuple[str, str]:
    """One line for a log; a new one whenever state or weight change."""
    state, share = words.rollout_state(rollout.state), f"{weight(rollout)} %"
    why = rollout.analysis_runs[-1].reason if rollout.analysis_runs else rollout.reason
    return f"{state} {share}", "  ".join(
        part for part in (words.brief(rollout.model_version), state, share, why) if part
    )


def _show_change(session: Session, found: gateway.Rollout) -> None:
    fields = {
        "rollout": words.brief(found.name),
        "version": words.brief(found.model_version),
        "state": words.rollout_state(found.state),
        "weight": f"{weight(found)} %",
        "why": found.reason,
    }
    screen.fields(session, found, fields)
