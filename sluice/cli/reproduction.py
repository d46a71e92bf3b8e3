"""`sluice jobs reproduce`, `compare`, `report`: a job run again, beside the first, and told as a page of curves."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sluice.cli import exits, jobs, live, screen, words
from sluice.cli.options import Session, command

Tolerance = Annotated[
    float | None,
    typer.Option(min=0.0, help="How far the losses of a step may lie apart if weights differ.  [default: 0.001]"),
]


def add_to(app: typer.Typer) -> None:
    """Adds the commands to those of `sluice jobs`."""
    command(app, "reproduce")(reproduce)
    command(app, "compare")(compare)
    command(app, "report")(report)


def reproduce(
    session: Session,
    job: jobs.Job,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow it and compare; exit 0 when the first is reproduced, 1 when not.")
    ] = False,
    tolerance: Tolerance = None,
) -> int:
    """Run a finished job again as it was: same rows, base, seed and settings. No version of a model comes of it."""
    again = session.client.jobs.reproduce(job)
    name = words.brief(again.name)
    if not watch:
        screen.fields(session, again, {"job": name, "reproduces": words.brief(again.reproduces)})
        screen.hint(session, f"how it comes out beside the first: sluice jobs compare {name}")
        return exits.OK
    pace = live.Pace()
    live.follow(
        session,
        session.client.jobs.watch(again.name),
        view=lambda item: jobs.view(item, pace),
        line=jobs.line,
        left=f"the job goes on; `sluice jobs compare {name}` says how it comes out",
    )
    return compare(session, again.name, tolerance)


def compare(session: Session, job: jobs.Job, tolerance: Tolerance = None) -> int:
    """Wait for a job that reproduces another, then compare the two; exit 0 when they agree, 1 when not."""
    given = () if tolerance is None else (tolerance,)
    found = session.client.jobs.compare(job, *given)
    if session.json:
        largest = None if math.isnan(found.largest) else found.largest
        screen.emit({**asdict(found), "largest": largest, "reproduced": found.reproduced, "verdict": found.verdict})
    else:
        for each in found.differences:
            screen.hint(session, f"the runs had {each}")
        screen.put(screen.cell(found.verdict))
    return exits.OK if found.reproduced else exits.FAILED


def report(
    session: Session,
    job: jobs.Job,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write an HTML page with curves there.")] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Write TensorBoard event files into this folder, by task type and job.")
    ] = None,
) -> None:
    """Write what a job did, step by step, as a page or for TensorBoard; of one that runs, as far as it is."""
    from kit.rpc.errors import Invalid
    from sluice.client.boards import write_events
    from sluice.client.training_page import training_page
    from sluice.rows.profile.report import PlotsMissingError

    if output is None and tensorboard is None:
        raise Invalid("nothing to write; say where with `-o page.html` or `--tensorboard FOLDER`")
    found, steps = session.client.jobs.get(job), session.client.jobs.steps(job)
    written = {}
    try:
        if output is not None:
            output.write_text(training_page(found, steps), "utf-8")
            written["page"] = str(output)
        if tensorboard is not None:
            written["events"] = str(write_events(tensorboard, found, steps))
    except PlotsMissingError as error:
        raise Invalid(f"there is no report: {error}") from error
    if session.json:
        screen.emit({**written, "steps": len(steps)})
    else:
        for name, path in written.items():
            screen.hint(session, f"{name}: {path}")
