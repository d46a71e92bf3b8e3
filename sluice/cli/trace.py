"""`sluice trace`: the spans of one piece of work across all processes, from the trace files of this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from sluice.cli import screen, words
from sluice.cli.options import Session, command

TRACE_ID = re.compile(r"[0-9a-f]{32}")
#: So many equal neighbors become one line.
MANY = 3
BAR_WIDTH = 24


def register(app: typer.Typer) -> None:
    """Adds `trace`."""
    command(app, "trace")(trace)


def trace(
    session: Session,
    job: Annotated[str, typer.Argument(metavar="JOB", help="A job, its beginning, or a trace id.")],
    home: Annotated[
        Path | None, typer.Option(help="The folder of the suite (SLUICE_HOME, else ./.sluice).", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every span, also where many are alike.")] = False,
) -> None:
    """Draw what a job caused, from the call that submitted it to the rollout, with durations.

    The files of $SLUICE_HOME/logs/traces are read; where OTEL_EXPORTER_OTLP_ENDPOINT is set, spans went there instead.
    """
    from kit.rpc.errors import NotFound
    from kit.telemetry.trace_files import read_traces

    trace_id = job if TRACE_ID.fullmatch(job) else _trace_of(session, job)
    folder = (home.resolve() if home else session.home) / "logs" / "traces"
    spans = [record for record in read_traces(folder) if record["trace_id"] == trace_id]
    if not spans:
        raise NotFound(
            f"no spans of trace {trace_id} in {folder}; if it was sampled, give the folder of its suite with --home"
        )
    spans.sort(key=lambda record: (record["start_unix_ns"], record["end_unix_ns"]))
    if session.json:
        for record in spans:
            screen.emit(record)
        return
    _draw(session, trace_id, tree(spans), every)


@dataclass
class Node:
    """A span with those it caused; ``count`` spans that are alike are one node."""

    record: dict[str, Any]
    children: list[Node] = field(default_factory=list)
    count: int = 1
    end_unix_ns: int = 0

    @property
    def kind(self) -> tuple[str, str]:
        """What makes two spans alike."""
        return self.record["service"], self.record["name"]


def tree(spans: Sequence[dict[str, Any]]) -> list[Node]:
    """The spans as trees, each level in order of time; a span whose parent is not there is a root."""
    nodes = {record["span_id"]: Node(record, end_unix_ns=record["end_unix_ns"]) for record in spans}
    roots: list[Node] = []
    for node in nodes.values():
        parent = nodes.get(node.record["parent_id"])
        (parent.children if parent else roots).append(node)
    return roots


def merged(nodes: Sequence[Node]) -> list[Node]:
    """Childless neighbors of one kind as one node where there are more than a few."""
    groups: dict[tuple[str, str], list[Node]] = {}
    for node in nodes:
        if not node.children:
            groups.setdefault(node.kind, []).append(node)
    many = {kind: group for kind, group in groups.items() if len(group) > MANY}
    kept = []
    for node in nodes:
        group = many.get(node.kind) if not node.children else None
        if group is None:
            kept.append(node)
        elif node is group[0]:
            end = max(each.end_unix_ns for each in group)
            kept.append(Node(node.record, count=len(group), end_unix_ns=end))
    return kept


def walk(nodes: Sequence[Node], every: bool, prefix: str = "") -> Iterator[tuple[str, Node]]:
    """Every node with the lines that lead to it."""
    shown = list(nodes) if every else merged(nodes)
    for index, node in enumerate(shown):
        last = index == len(shown) - 1
        yield prefix + ("└ " if last else "├ "), node
        yield from walk(node.children, every, prefix + ("  " if last else "│ "))


def _trace_of(session: Session, job: str) -> str:
    from kit.rpc.errors import NotFound

    found = session.client.jobs.get(job)
    parts = found.traceparent.split("-")
    if len(parts) < 3:
        raise NotFound(f"job `{words.brief(found.name)}` was submitted without a trace; the next one has one")
    return parts[1]


def _draw(session: Session, trace_id: str, roots: list[Node], every: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    lines = list(walk(roots, every))
    begin = min(node.record["start_unix_ns"] for _, node in lines)
    end = max(node.end_unix_ns for _, node in lines)
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("SPAN", "SERVICE", "AT", "TOOK", ""):
        made.add_column(
            title, no_wrap=True, overflow="ellipsis", justify="right" if title in ("AT", "TOOK") else "left"
        )
    for lead, node in lines:
        record = node.record
        failed = record["status"] == "ERROR"
        name = Text.assemble((lead, "dim"), (_name(record["name"]), "red" if failed else ""))
        if node.count > 1:
            name.append(f" ×{node.count}", "dim")
        start, took = record["start_unix_ns"] - begin, node.end_unix_ns - record["start_unix_ns"]
        made.add_row(
            name, screen.cell(record["service"]), screen.cell(words.duration(start / 1e9)),
            screen.cell(words.duration(took / 1e9)), _bar(start, took, end - begin, failed),
        )  # fmt: skip
    screen.put(made)
    screen.hint(session, f"trace {trace_id}, {words.duration((end - begin) / 1e9)} in all")


def _name(name: str) -> str:
    """`TrainingJobService/CreateTrainingJob` of an rpc's full name."""
    return re.sub(r"^sluice\.\w+\.v\d+\.(?=\w+/)", "", name)


def _bar(start: int, took: int, whole: int, failed: bool) -> Any:
    from rich.text import Text

    scale = BAR_WIDTH / max(whole, 1)
    offset = min(int(start * scale), BAR_WIDTH - 1)
    length = max(1, min(round(took * scale), BAR_WIDTH - offset))
    return Text(" " * offset + "━" * length, style="red" if failed else "cyan")
