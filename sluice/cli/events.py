"""`sluice events`: what happened and who did it, what happens, and what could not be handled."""

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


@command(app, "dead")
def dead(session: Session, service: Service = None) -> None:
    """List the events that a service could not handle, with the reason and without what they held."""
    found = session.client.events(*(service or [])).dead_letters()
    screen.listing(session, found, LETTERS, "no dead letters; every event was handled")
    if found:
        screen.hint(session, "repair the cause, then `sluice events replay ID`, or --all")


@command(app, "replay")
def replay(
    session: Session,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]…", help="As `events dead` lists them, or how they begin.")
    ] = None,
    service: Service = None,
    every: Annotated[bool, typer.Option("--all", help="All that there are.")] = False,
) -> None:
    """Have dead letters handled again once the cause is repaired; one that was handled has no second effect."""
    from kit.rpc.errors import Invalid

    if every == bool(ids):
        raise Invalid("say which dead letters: the ids that `sluice events dead` lists, or --all")
    sent = session.client.events(*(service or [])).replay(*(ids or []))
    screen.listing(session, sent, LETTERS, "nothing to replay; there are no dead letters that can be sent again")
    if sent:
        screen.hint(session, f"{len(sent)} sent again; what fails again is back in `sluice events dead`")


LETTERS: screen.Columns = {
    "ID": lambda each: each.id,
    "SERVICE": lambda each: each.service,
    "EVENT": lambda each: each.type.removeprefix("sluice.").replace(".v1.", " "),
    "WHY": lambda each: each.reason,
    "SIZE": lambda each: words.size(each.size_bytes) + ("" if each.replayable else ", not kept"),
    "SINCE": lambda each: words.when(each.bury_time),
}


def _print(session: Session, event: events.Event) -> None:
    if session.json:
        screen.emit(event)
        return
    from rich.text import Text

    service, what = event.source, ".".join(event.type.split(".")[3:])
    detail = screen.plain(_detail(event))
    style = _style(what, detail)
    line = Text.assemble(
        (f"{words.clock(event.time)}  ", "dim"), f"{service:<10}", (f"{what:<26}", style),
        f"{words.brief(event.subject):<24}", f"{words.brief(event.principal):<12}  ", (detail, "dim"),
    )  # fmt: skip
    line.rstrip()
    screen.out().print(line, soft_wrap=True)


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
