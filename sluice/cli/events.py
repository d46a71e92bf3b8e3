"""`sluice events`: what happened, and what happens."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluice.cli import screen, words
from sluice.cli.options import Session, command, group

if TYPE_CHECKING:
    from sluice.events import v1 as events

app = group("events", "The event logs of the services.")

Service = Annotated[
    list[str] | None,
    typer.Option(help="dataset, trainer, evaluator, registry, gateway; repeatable; without it, all."),
]
Subject = Annotated[str, typer.Option(help="Only events about this resource, or what is below it.")]
#: Fields of an event that tell a person most, in this order.
TELLING = ("state", "verdict", "weight_percent", "note", "reason", "row_count")


@command(app, "tail")
def tail(session: Session, service: Service = None, subject: Subject = "") -> None:
    """Print events as they are committed, until Ctrl-C."""
    log = session.client.events(*(service or []))
    screen.hint(session, "waiting for events; Ctrl-C ends it")
    for event in log.tail(subject):
        _print(session, event)


@command(app, "list")
def list_(
    session: Session,
    service: Service = None,
    subject: Subject = "",
    since: Annotated[str, typer.Option(help="How far back, such as 15m, 1h, 7d.")] = "1h",
    limit: Annotated[int, typer.Option(min=1, help="At most so many of each service.")] = 1000,
) -> None:
    """Print the events of the last hour, of all services in order of time."""
    begin = datetime.now(UTC) - timedelta(seconds=words.seconds(since))
    found = session.client.events(*(service or [])).list(begin, subject, limit)
    for event in found:
        _print(session, event)
    if not found:
        screen.hint(session, f"no events in the last {since}; --since 7d looks further back")


def _print(session: Session, event: events.Event) -> None:
    if session.json:
        screen.emit(event)
        return
    from rich.text import Text

    service, what = event.source, ".".join(event.type.split(".")[3:])
    detail = _detail(event)
    style = _style(what, detail)
    screen.out().print(
        Text.assemble(
            (f"{words.clock(event.time)}  ", "dim"), f"{service:<10}", (f"{what:<26}", style),
            f"{words.brief(event.subject):<24}", (detail, "dim"),
        ),
        soft_wrap=True,
    )  # fmt: skip


def _detail(event: events.Event) -> str:
    try:
        data: dict[str, Any] = json.loads(event.data_json)
    except ValueError:
        return ""
    found = {_snake(key): value for key, value in data.items()}
    decision = found.get("gate_decision")
    if isinstance(decision, dict):
        found |= {_snake(key): value for key, value in decision.items()}
    failure = found.get("failure")
    if isinstance(failure, dict):
        found.setdefault("reason", failure.get("message", ""))
    parts = [_word(key, found[key]) for key in TELLING if found.get(key)]
    if version := found.get("model_version"):
        parts.insert(0, words.brief(version if isinstance(version, str) else version.get("name", "")))
    return "  ".join(parts)


def _word(key: str, value: Any) -> str:
    if key in ("state", "verdict"):
        return str(value).split("STATE_")[-1].removeprefix("VERDICT_")
    return f"{value} %" if key == "weight_percent" else f"{value} rows" if key == "row_count" else str(value)


def _snake(key: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in key)


def _style(what: str, detail: str) -> str:
    verb = what.rpartition(".")[2]
    if verb in ("failed", "reverted", "revoked") or detail.startswith(("REJECTED", "FAIL")):
        return "red"
    return "green" if verb in ("succeeded", "committed", "completed", "approved", "promoted") else ""
