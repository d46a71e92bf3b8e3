"""`sluice jobs`: list, show, watch, cancel, pause, resume, retry, logs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from sluice.cli import exits, live, screen, words
from sluice.cli.options import Session, command, group

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sluice.trainer import v1 as trainer

app = group("jobs", "Training jobs: followed, stopped, taken up again.")

Job = Annotated[str, typer.Argument(help="The id of a job, or the beginning of it.")]
COLUMNS: screen.Columns = {
    "JOB": lambda each: words.brief(each.name),
    "MODEL": lambda each: each.display_name or each.spec.model,
    "TASK TYPE": lambda each: each.spec.task_type,
    "DATASET": lambda each: words.brief(each.spec.dataset_version),
    "STATE": lambda each: words.job_state(each.state),
    "STEP": lambda each: step(each),
    "LOSS": lambda each: loss(each),
    "SUBMITTED": lambda each: words.when(each.create_time),
}
ATTEMPTS: screen.Columns = {
    "ATTEMPT": lambda each: each.epoch,
    "HOST": lambda each: each.host,
    "STARTED": lambda each: words.clock(each.start_time),
    "TOOK": lambda each: words.between(each.start_time, each.end_time),
    "FROM STEP": lambda each: each.resumed_from_step,
    "OUTCOME": lambda each: each.outcome or "runs",
}
HISTORY: screen.Columns = {
    "STATE": lambda each: words.job_state(each.state),
    "SINCE": lambda each: words.clock(each.time),
    "WHY": lambda each: each.note,
}

SHOWN = ("learning_rate", "lr_scheduler_type", "per_device_train_batch_size", "max_steps", "max_length", "optim")
MACHINE = ("cpu", "cores", "memory", "accelerators")


@command(app, "list")
def list_(
    session: Session,
    filter: Annotated[str, typer.Option(help="Such as 'state = \"RUNNING\"'.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many; 0 means all.")] = 50,
) -> None:
    """List the jobs of the project, newest first."""
    found = session.client.jobs.list(filter, limit)
    screen.listing(session, found, COLUMNS, "no jobs yet; `sluice train --dataset … --model …` submits one")


@command(app, "show")
def show(session: Session, job: Job) -> None:
    """Show a job: what was asked, where it stands, every state and attempt, what it left."""
    found = session.client.jobs.get(job)
    spec, result = found.spec, found.result
    fields = {
        "job": found.name,
        "state": words.job_state(found.state),
        "failure": found.failure.message,
        "progress": f"{step(found)}  {live.figures(found.progress.figures)}".strip(),
        "task type": spec.task_type,
        "recipe": f"{spec.WhichOneof('recipe') or ''} {spec.WhichOneof('tuner') or ''}".strip(),
        "dataset": words.brief(spec.dataset_version),
        "base": words.brief(spec.base_model_version),
        "model": spec.model,
        "endpoint": spec.endpoint or spec.model,
        "gate policy": spec.gate_policy,
        "seed": str(spec.seed),
        "reproduces": words.brief(found.reproduces) if found.reproduces else "",
        "settings": "  ".join(f"{name} {value}" for name in SHOWN if (value := result.settings.get(name))),
        "machine": "  ".join(f"{name} {value}" for name in MACHINE if (value := result.environment.get(name))),
        "metrics": "  ".join(f"{key} {value:.4g}" for key, value in sorted(result.metrics.items())),
        "weights": words.digest(result.artifact.digest),
        "submitted": f"{words.when(found.create_time)} by {words.brief(found.creator)}",
    }
    more = [screen.titled("history", found.history, HISTORY)] if found.history else []
    more += [screen.titled("attempts", found.attempts, ATTEMPTS)] if found.attempts else []
    screen.fields(session, found, fields, *more)


@command(app, "watch")
def watch(session: Session, job: Job) -> int:
    """Follow a job until it is over; exit 0 when it succeeded, 1 when not. Ctrl-C leaves it running."""
    return watch_job(session, job)


@command(app, "cancel")
def cancel(session: Session, job: Job) -> None:
    """Ask a job to stop."""
    _change(session, session.client.jobs.cancel, job)


@command(app, "pause")
def pause(session: Session, job: Job) -> None:
    """Ask a running job to save a checkpoint and stop."""
    _change(session, session.client.jobs.pause, job)


@command(app, "resume")
def resume(session: Session, job: Job) -> None:
    """Queue a paused job again."""
    _change(session, session.client.jobs.resume, job)


@command(app, "retry")
def retry(session: Session, job: Job) -> None:
    """Queue a failed job again, from its last checkpoint."""
    _change(session, session.client.jobs.retry, job)


@command(app, "logs")
def logs(
    session: Session,
    job: Job,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over.")] = False,
) -> None:
    """Print the log of a job's attempts."""
    for text in session.client.jobs.logs(job, follow):
        if session.json:
            screen.emit({"text": text})
        else:
            sys.stdout.write(text)
            sys.stdout.flush()


def watch_job(session: Session, job: str) -> int:
    """Follows a job on the screen; the exit code says how it ended."""
    from sluice.types import v1 as types

    pace = live.Pace()
    last = live.follow(
        session,
        session.client.jobs.watch(job),
        view=lambda item: view(item, pace),
        line=line,
        left=f"the job goes on; `sluice jobs watch {job}` comes back to it",
    )
    if last.state == types.JOB_STATE_SUCCEEDED:
        screen.hint(session, f"what the gate says of it: sluice gate explain {last.spec.model} --wait")
        return exits.OK
    exits.complain(last.failure.message or f"the job ended as {words.job_state(last.state)}")
    return exits.FAILED


def view(job: trainer.TrainingJob, pace: live.Pace) -> RenderableType:
    """One line for a terminal: state, bar, step, figures, time left."""
    from rich.table import Table

    progress = job.progress
    left = pace.left_s(progress.done, progress.total, time.monotonic())
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row(
        screen.cell(job.spec.model),
        screen.cell(words.job_state(job.state)),
        live.bar(progress.done, progress.total or 1),
        screen.cell(step(job)),
        screen.cell(live.figures(progress.figures, 2)),
        screen.cell(live.remaining(left)),
    )
    return grid


def line(job: trainer.TrainingJob) -> tuple[str, str]:
    """One line for a log; a new one whenever state or phase change."""
    state = words.job_state(job.state)
    parts = (job.spec.model, state, job.progress.phase, step(job), live.figures(job.progress.figures))
    return f"{state} {job.progress.phase}", "  ".join(part for part in parts if part)


def step(job: trainer.TrainingJob) -> str:
    """`120/250`; empty before the first step."""
    progress = job.progress
    return f"{progress.done}/{progress.total}" if progress.total else ""


def loss(job: trainer.TrainingJob) -> str:
    """The last loss, or the final one."""
    figures = job.progress.figures
    return f"{figures['loss']:.4f}" if "loss" in figures else ""


def _change(session: Session, call: Callable[[str], trainer.TrainingJob], job: str) -> None:
    found = call(job)
    screen.fields(session, found, {"job": words.brief(found.name), "state": words.job_state(found.state)})
