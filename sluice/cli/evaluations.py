"""`sluice eval`: list, show, create, watch, retry, rows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluice.cli import completion, exits, live, screen, words
from sluice.cli.options import Session, command, group

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sluice.evaluator import v1 as evaluator

app = group("eval", "Evaluations: what a version scores through the engine that will serve it.")

Evaluation = Annotated[
    str, typer.Argument(metavar="EVALUATION", help="An id, the beginning of one, or a version: bank-bot@3.")
]
COLUMNS: screen.Columns = {
    "EVALUATION": lambda each: words.brief(each.name),
    "VERSION": lambda each: words.brief(each.model_version),
    "STATE": lambda each: words.job_state(each.state),
    "ROWS": lambda each: rows_done(each),
    "INCUMBENT": lambda each: words.brief(each.incumbent),
    "SCORES": lambda each: "  ".join(f"{metric.name} {metric.value:.3f}" for metric in each.report.metrics),
    "BEGUN": lambda each: words.when(each.create_time),
}


@command(app, "list")
def list_(
    session: Session,
    filter: Annotated[str, typer.Option(help="Such as 'state = \"RUNNING\"'.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many; 0 means all.")] = 50,
) -> None:
    """List the evaluations of the project, newest first."""
    empty = "no evaluations yet; every new model version gets one by itself"
    screen.listing(session, session.client.evaluations.list(filter, limit), COLUMNS, empty)


@command(app, "show")
def show(session: Session, evaluation: Evaluation) -> None:
    """Show an evaluation: the scores with their intervals, beside the incumbent's, and parity with the recipe."""
    found = session.client.evaluations.get(evaluation)
    report, parity = found.report, found.report.parity
    fields = {
        "evaluation": found.name.rsplit("/", 1)[-1],
        "state": words.job_state(found.state),
        "failure": found.failure.message,
        "version": words.brief(found.model_version),
        "incumbent": words.brief(found.incumbent) or "none",
        "dataset": words.brief(found.suite.dataset_version),
        "rows": rows_done(found),
        "scored": report.rows_scored or None,
        "not answered": report.rows_failed or None,
        "left out, too large for engines": report.rows_left_out or None,
        "parity": _parity(parity) if report.HasField("parity") else "",
        "begun": words.when(found.create_time),
    }
    incumbents = {metric.name: metric.value for metric in report.incumbent_metrics}
    columns: screen.Columns = {
        "METRIC": lambda each: each.name,
        "VALUE": lambda each: f"{each.value:.4f}",
        "95 % INTERVAL": lambda each: f"{each.low:.4f} … {each.high:.4f}",
        "INCUMBENT": lambda each: f"{incumbents[each.name]:.4f}" if each.name in incumbents else "",
        "ROWS": lambda each: each.count,
    }
    more = [screen.titled("scores", report.metrics, columns)] if report.metrics else []
    screen.fields(session, found, fields, *more)


@command(app, "create")
def create(
    session: Session,
    version: Annotated[str, typer.Argument(metavar="MODEL@N", help="A version: bank-bot@3.")],
    dataset: Annotated[
        str,
        typer.Option(
            metavar="DATASET@N",
            help="The rows to ask; without it, those the version came with.",
            autocompletion=completion.datasets,
        ),
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Follow it until it is over, as `eval watch` does.")] = False,
) -> int:
    """Evaluate a version by hand; the same version and rows again give the evaluation that is there.

    No gate reads it: that is for the evaluation that every version gets by itself.
    """
    from sluice.client.evaluations import is_over

    found = session.client.evaluations.create(version, dataset=dataset)
    if wait:
        return _follow(session, found.name)
    _show_change(session, found)
    what = "show" if is_over(found) else "watch"
    screen.hint(session, f"`sluice eval {what} {words.brief(found.name)}` tells what it gives")
    return exits.OK


@command(app, "watch")
def watch(session: Session, evaluation: Evaluation) -> int:
    """Follow an evaluation until it is over; exit 0 when it succeeded, 1 when not."""
    return _follow(session, evaluation)


def _follow(session: Session, evaluation: str) -> int:
    from sluice.types import v1 as types

    last = follow(session, evaluation)
    if last.state == types.JOB_STATE_SUCCEEDED:
        return exits.OK
    exits.complain(last.failure.message or f"the evaluation ended as {words.job_state(last.state)}")
    return exits.FAILED


def follow(session: Session, evaluation: str) -> evaluator.Evaluation:
    """Shows an evaluation until it is over, and returns it."""
    pace = live.Pace()
    return live.follow(
        session,
        session.client.evaluations.watch(evaluation),
        view=lambda item: _view(item, pace),
        line=_line,
        left=f"the evaluation goes on; `sluice eval watch {words.brief(evaluation)}` comes back to it",
    )


@command(app, "retry")
def retry(session: Session, evaluation: Evaluation) -> None:
    """Run an evaluation again that gave no report; the gate reads the new report of a version's own."""
    _show_change(session, session.client.evaluations.retry(evaluation))


def _show_change(session: Session, found: evaluator.Evaluation) -> None:
    fields = {
        "evaluation": words.brief(found.name),
        "version": words.brief(found.model_version),
        "dataset": words.brief(found.suite.dataset_version),
        "state": words.job_state(found.state),
    }
    screen.fields(session, found, fields)


@command(app, "rows")
def rows(
    session: Session,
    evaluation: Evaluation,
    limit: Annotated[int, typer.Option(help="At most so many; 0 means all.")] = 20,
    wrong: Annotated[bool, typer.Option("--wrong", help="Only rows with a score below 1, or no answer.")] = False,
) -> None:
    """Show what each row gave: reference, answer, the incumbent's answer, scores. This is row content."""
    found: list[Any] = []
    for row in session.client.evaluations.rows(evaluation):
        if wrong and not row.error and all(score >= 1 for score in row.scores.values()):
            continue
        found.append(row)
        if len(found) == limit:
            break
    columns: screen.Columns = {
        "ROW": lambda each: each.row,
        "REFERENCE": lambda each: each.reference,
        "ANSWER": lambda each: each.error or each.answer,
        "INCUMBENT": lambda each: each.incumbent_answer,
        "SCORES": lambda each: "  ".join(f"{key} {value:.2f}" for key, value in sorted(each.scores.items())),
    }
    screen.listing(session, found, columns, "no rows; the evaluation has not scored any such")


def rows_done(evaluation: evaluator.Evaluation) -> str:
    """`40/200`; empty before the first row."""
    progress = evaluation.progress
    return f"{progress.done}/{progress.total}" if progress.total else ""


def _parity(parity: evaluator.Parity) -> str:
    said = "passed" if parity.passed else f"FAILED: {parity.first_difference}"
    if parity.max_value_difference:
        equal = f"{parity.equal_answers} of {parity.prompts} texts give equal values"
        return f"{said} ({equal}, within {parity.max_value_difference:.2g})"
    return (
        f"{said} ({parity.equal_answers} of {parity.prompts} greedy answers equal,"
        f" log-probabilities within {parity.max_log_probability_difference:.2g})"
    )


def _view(evaluation: evaluator.Evaluation, pace: live.Pace) -> RenderableType:
    from rich.table import Table

    progress = evaluation.progress
    left = pace.left_s(progress.done, progress.total, time.monotonic())
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row(
        screen.cell(words.brief(evaluation.model_version)),
        screen.cell(words.job_state(evaluation.state)),
        live.bar(progress.done, progress.total or 1),
        screen.cell(f"{rows_done(evaluation)} rows" if progress.total else progress.phase),
        screen.cell(live.figures(progress.figures)),
        screen.cell(live.remaining(left)),
    )
    return grid


def _line(evaluation: evaluator.Evaluation) -> tuple[str, str]:
    state, version = words.job_state(evaluation.state), words.brief(evaluation.model_version)
    parts = (
        version,
        state,
        evaluation.progress.phase,
        rows_done(evaluation),
        live.figures(evaluation.progress.figures),
    )
    return f"{state} {evaluation.progress.phase}", "  ".join(part for part in parts if part)
