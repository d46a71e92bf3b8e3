"""What an evaluation is and may become; pure: time is an argument, nothing is read or sent."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from kit.rpc.errors import Invalid, StateConflict
from kit.rpc.names import project_of
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.evaluator import v1 as evaluator
from sluice.lifecycle import JOB, can, is_over
from sluice.registry import v1 as registry
from sluice.types import v1 as types

DEFAULT_MAX_TOKENS = 64
#: Where the default suite looks for rows, best first.
SPLITS = ("test", "validation", "train")
NEW = (types.JOB_STATE_CREATED, types.JOB_STATE_VALIDATING)
#: States in which an evaluation is worked on.
LIVE = (types.JOB_STATE_PREPARING, types.JOB_STATE_RUNNING)
UNTOUCHED = (types.JOB_STATE_CREATED, types.JOB_STATE_VALIDATING, types.JOB_STATE_QUEUED)


@dataclass(frozen=True)
class Plan:
    """What an evaluation will do: the suite with nothing left open, and who is compared with."""

    suite: evaluator.Suite
    suite_digest: str
    endpoint: str
    incumbent: str
    #: What people should know of the choice; empty when there is nothing.
    note: str


def automatic_name(model_version: str) -> str:
    """The name of the one evaluation that a new version causes; always the same for the same version."""
    made = uuid.uuid5(uuid.NAMESPACE_URL, f"sluice:{model_version}:automatic")
    return f"{project_of(model_version)}/evaluations/{made}"


def new_evaluation(name: str, model_version: str, traceparent: str, now: datetime) -> evaluator.Evaluation:
    """An evaluation in CREATED."""
    evaluation = evaluator.Evaluation(name=name, model_version=model_version, traceparent=traceparent)
    _record(evaluation, types.JOB_STATE_CREATED, now, "")
    return evaluation


def check_request(parent: str, evaluation: evaluator.Evaluation) -> None:
    """Raises Invalid when a version or its rows belong to another project than the evaluation."""
    named = {"model_version": evaluation.model_version, "suite.dataset_version": evaluation.suite.dataset_version}
    for field, name in named.items():
        if name and project_of(name) != parent:
            raise Invalid(
                f"evaluation.{field} is not in `{parent}`; name one of the same project",
                violations=[(f"evaluation.{field}", f"is not in `{parent}`")],
            )


# The suite.


def default_suite(version: registry.ModelVersion, task_type: registry.TaskType) -> evaluator.Suite:
    """The suite of the task type on the version's own rows. Raises Invalid for a version without any."""
    if not version.lineage.dataset_version:
        raise Invalid(
            f"`{version.name}` has no dataset of its own; evaluate it by hand with a suite that names one",
            violations=[("evaluation.suite", "is needed for a version without a dataset")],
        )
    return evaluator.Suite(
        dataset_version=version.lineage.dataset_version,
        metrics=task_type.metrics,
        max_rows=task_type.suite_max_rows,
        max_tokens=task_type.suite_max_tokens,
    )


def settle(wanted: evaluator.Suite, rows: dataset.DatasetVersion) -> tuple[evaluator.Suite, str]:
    """The suite with nothing left open, and a note where the rows come from another split than `test`.

    Raises Invalid when the split asked for, or every one, has no rows.
    """
    suite = evaluator.Suite()
    suite.CopyFrom(wanted)
    split = next((each for each in SPLITS if rows.split_rows.get(each)), "")
    if suite.split and not rows.split_rows.get(suite.split):
        raise Invalid(
            f"`{rows.name}` has no rows in its split `{suite.split}`; choose another split",
            reason=errors.ERROR_REASON_INVALID_ROWS,
        )
    if not split:
        raise Invalid(f"`{rows.name}` has no rows at all; upload some", reason=errors.ERROR_REASON_INVALID_ROWS)
    note = "" if suite.split or split == "test" else f"the rows are those of `{split}`: `test` has none"
    suite.split = suite.split or split
    suite.max_tokens = suite.max_tokens or DEFAULT_MAX_TOKENS
    return suite, note


def suite_digest(suite: evaluator.Suite, rows_digest: str) -> str:
    """SHA-256 over a settled suite and its rows; the order of the metrics does not matter."""
    content = {
        "dataset_version": suite.dataset_version,
        "rows": rows_digest,
        "split": suite.split,
        "metrics": sorted(suite.metrics),
        "max_rows": suite.max_rows,
        "max_tokens": suite.max_tokens,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


# The life of an evaluation.


def enter(evaluation: evaluator.Evaluation, state: types.JobState, now: datetime, note: str = "") -> None:
    """Moves the evaluation on. Raises StateConflict (ILLEGAL_TRANSITION) where the life cycle has no such step."""
    if not can(JOB, evaluation.state, state):
        raise StateConflict(
            f"evaluation `{evaluation.name}` is {_word(evaluation.state)}, from which it cannot become {_word(state)}",
            resource=("Evaluation", evaluation.name),
        )
    _record(evaluation, state, now, note)


class UnwantedError(Exception):
    """The work is for nobody any more: the evaluation is queued again, since rows were forgotten, or it is over."""


def check_wanted(evaluation: evaluator.Evaluation) -> None:
    """Raises UnwantedError unless the evaluation is worked on; one that is asked to stop may still come to its end."""
    if evaluation.state not in (*LIVE, types.JOB_STATE_CANCELLING):
        raise UnwantedError


def planned_on(evaluation: evaluator.Evaluation, rows_digest: str) -> bool:
    """Whether it was planned on the rows of its dataset version as they were at this digest."""
    return evaluation.suite_digest == suite_digest(evaluation.suite, rows_digest)


def forget_rows(evaluation: evaluator.Evaluation, now: datetime) -> None:
    """Begins one anew that is worked on; of one that has a report it says that nothing is kept of rows any more."""
    if evaluation.state in LIVE:
        enter(evaluation, types.JOB_STATE_QUEUED, now, "rows were forgotten meanwhile: it begins anew")
    elif evaluation.report.rows_digest and not evaluation.HasField("rows_forget_time"):
        evaluation.rows_forget_time.FromDatetime(now)


def check_kept(evaluation: evaluator.Evaluation) -> None:
    """Raises StateConflict (ROWS_FORGOTTEN) when what each row gave is not kept any more."""
    if evaluation.HasField("rows_forget_time"):
        raise StateConflict(
            f"rows of `{evaluation.suite.dataset_version}` were forgotten since, and with them what each gave; "
            "its figures are in the evaluation",
            reason=errors.ERROR_REASON_ROWS_FORGOTTEN,
            resource=("Evaluation", evaluation.name),
        )


def adopt(evaluation: evaluator.Evaluation, plan: Plan) -> None:
    """Writes the plan into the evaluation."""
    evaluation.suite.CopyFrom(plan.suite)
    evaluation.suite_digest = plan.suite_digest
    evaluation.endpoint = plan.endpoint
    evaluation.incumbent = plan.incumbent


def cancel(evaluation: evaluator.Evaluation, now: datetime) -> None:
    """Cancels one that waits, asks one that is worked on to stop; nothing where that was asked before."""
    if evaluation.state in (types.JOB_STATE_CANCELLING, types.JOB_STATE_CANCELLED):
        return
    waits = evaluation.state in UNTOUCHED
    enter(evaluation, types.JOB_STATE_CANCELLED if waits else types.JOB_STATE_CANCELLING, now)


def retry(evaluation: evaluator.Evaluation, now: datetime) -> None:
    """Queues a failed evaluation again. Raises StateConflict for one that has not failed."""
    if evaluation.state != types.JOB_STATE_FAILED:
        raise StateConflict(
            f"evaluation `{evaluation.name}` is {_word(evaluation.state)}; "
            "only one that ended without a report can be retried",
            resource=("Evaluation", evaluation.name),
        )
    enter(evaluation, types.JOB_STATE_QUEUED, now, "retried")
    evaluation.ClearField("failure")


def take_over(name: str, given_up: evaluator.Evaluation, now: datetime) -> evaluator.Evaluation:
    """A new evaluation for the same version and suite; the one that was given up counts no more, if it did."""
    other = new_evaluation(name, given_up.model_version, given_up.traceparent, now)
    other.endpoint = given_up.endpoint
    if given_up.HasField("suite"):
        other.suite.CopyFrom(given_up.suite)
    other.automatic, given_up.automatic = given_up.automatic, False
    return other


def fail(evaluation: evaluator.Evaluation, failure: types.Failure, now: datetime) -> None:
    """Ends the evaluation without a report; nothing when it is over."""
    if not is_over(JOB, evaluation.state):
        evaluation.failure.CopyFrom(failure)
        note = errors.ErrorReason.Name(failure.reason).removeprefix("ERROR_REASON_")
        enter(evaluation, types.JOB_STATE_FAILED, now, note)


def waited_too_long(evaluation: evaluator.Evaluation, limit: timedelta, now: datetime) -> bool:
    """Whether an evaluation waits, in the queue or for the services it asks, for longer than ``limit``."""
    return evaluation.state in UNTOUCHED and _last(evaluation, evaluation.history[-1].state, now) > limit


def time_limit_failure(evaluation: evaluator.Evaluation, limit: timedelta, now: datetime) -> types.Failure | None:
    """The failure of an evaluation that is worked on for longer than ``limit``; None while it may go on."""
    if evaluation.state not in LIVE or _last(evaluation, types.JOB_STATE_PREPARING, now) <= limit:
        return None
    message = (
        f"the evaluation took longer than {limit.total_seconds():g} s; see that the gateway and its engine answer, "
        "then retry it: answers that were given are kept"
    )
    return types.Failure(reason=errors.ERROR_REASON_TIME_LIMIT, message=message)


def _last(evaluation: evaluator.Evaluation, state: int, now: datetime) -> timedelta:
    """How long ago it last entered ``state``; nothing when it never did."""
    times = [entry.time.ToDatetime(now.tzinfo) for entry in evaluation.history if entry.state == state]
    return now - times[-1] if times else timedelta()


def _record(evaluation: evaluator.Evaluation, state: types.JobState, now: datetime, note: str) -> None:
    evaluation.state = state
    evaluation.history.add(state=state, note=note).time.FromDatetime(now)


def _word(state: int) -> str:
    return types.JobState.Name(state).removeprefix("JOB_STATE_")
