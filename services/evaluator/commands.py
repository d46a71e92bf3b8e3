"""What can be done to evaluations: one function an intent, inside a unit that the caller opened."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from google.protobuf.message import Message

from kit.rpc.names import parent_of, project_of, uuid7
from kit.store import Unit
from kit.telemetry import current_traceparent
from services.evaluator import domain, store
from services.evaluator.domain import Plan
from sluice.dataset import v1 as dataset
from sluice.evaluator import v1 as evaluator
from sluice.lifecycle import JOB, is_over
from sluice.registry import v1 as registry
from sluice.types import v1 as types

Act = Callable[[evaluator.Evaluation, datetime], object]


async def create_evaluation(unit: Unit, version: registry.ModelVersion) -> None:
    """Records the one evaluation that a new version causes; a repeat does nothing."""
    name = domain.automatic_name(version.name)
    if await store.EVALUATIONS.find(unit.session, name=name):
        return
    traceparent = current_traceparent() or version.traceparent
    evaluation = domain.new_evaluation(name, version.name, traceparent, unit.now)
    evaluation.endpoint = version.endpoint
    evaluation.automatic = True
    await _insert(unit, evaluation)


async def create_by_hand(
    unit: Unit, request: evaluator.CreateEvaluationRequest, plan: Plan
) -> evaluator.CreateEvaluationResponse:
    """Records an evaluation that somebody asks for, or finds the one there is for the same version and suite."""
    version = request.evaluation.model_version
    found = await store.effective(unit.session, version, plan.suite_digest)
    if found is None and not request.evaluation.HasField("suite"):
        # The automatic one has the default suite too, though it may not have looked it up yet.
        caused = await store.EVALUATIONS.find(unit.session, name=domain.automatic_name(version))
        found = next((each for each in caused if each.state in domain.NEW), None)
    if found is None:
        name = f"{request.parent}/evaluations/{uuid7()}"
        found = domain.new_evaluation(name, version, current_traceparent(), unit.now)
        domain.adopt(found, plan)
        await _insert(unit, found)
    return evaluator.CreateEvaluationResponse(evaluation=found)


async def cancel(unit: Unit, request: evaluator.CancelEvaluationRequest) -> evaluator.CancelEvaluationResponse:
    """Stops an evaluation, or asks it to stop."""
    evaluation = await change(unit, request.name, domain.cancel, request.etag)
    return evaluator.CancelEvaluationResponse(evaluation=evaluation)


async def retry(unit: Unit, request: evaluator.RetryEvaluationRequest) -> evaluator.RetryEvaluationResponse:
    """Queues a failed evaluation again; of one that was given up it makes another, which takes its place."""
    evaluation = await store.EVALUATIONS.get(unit.session, request.name)
    if evaluation.state in store.GIVEN_UP:
        name = f"{project_of(evaluation.name)}/evaluations/{uuid7()}"
        other = domain.take_over(name, evaluation, unit.now)
        await store.EVALUATIONS.update(unit, evaluation, request.etag)
        await _insert(unit, other)
        return evaluator.RetryEvaluationResponse(evaluation=other)
    evaluation = await change(unit, request.name, domain.retry, request.etag)
    return evaluator.RetryEvaluationResponse(evaluation=evaluation)


# What the supervisor does.


async def validate(unit: Unit, name: str) -> None:
    """Begins the checks of an evaluation that is new."""
    await change(unit, name, _if(types.JOB_STATE_CREATED, types.JOB_STATE_VALIDATING))


async def queue(unit: Unit, name: str, plan: Plan) -> None:
    """Queues an evaluation that was checked."""
    await _settle(unit, name, plan, types.JOB_STATE_VALIDATING, types.JOB_STATE_QUEUED)


async def claim(unit: Unit, name: str, plan: Plan) -> None:
    """Begins the work on an evaluation that waits; the plan is that of now, so a retry sees who serves today."""
    await _settle(unit, name, plan, types.JOB_STATE_QUEUED, types.JOB_STATE_PREPARING)


async def start(unit: Unit, name: str, rows: int) -> None:
    """Begins to ask: the engines are loaded."""

    def act(evaluation: evaluator.Evaluation, now: datetime) -> None:
        domain.check_wanted(evaluation)
        if evaluation.state == types.JOB_STATE_PREPARING:
            domain.enter(evaluation, types.JOB_STATE_RUNNING, now)
        evaluation.progress.total = rows

    await change(unit, name, act)


async def keep_batch(unit: Unit, batch: store.BatchRow, phase: str, answers: int) -> None:
    """Counts a stored batch of answers as given."""

    def act(evaluation: evaluator.Evaluation, now: datetime) -> None:
        domain.check_wanted(evaluation)
        evaluation.progress.done = answers
        evaluation.progress.phase = phase
        evaluation.progress.time.FromDatetime(now)

    unit.session.add(batch)
    await change(unit, batch.evaluation, act)


async def succeed(unit: Unit, name: str, report: evaluator.Report) -> None:
    """Ends an evaluation with its report."""

    def act(evaluation: evaluator.Evaluation, now: datetime) -> None:
        domain.check_wanted(evaluation)
        evaluation.report.CopyFrom(report)
        domain.enter(evaluation, types.JOB_STATE_SUCCEEDED, now)

    await change(unit, name, act)
    await store.strike(unit, project_of(name), report.rows_digest)


async def forget_rows(unit: Unit, applied: dataset.ErasureApplied) -> None:
    """Lets go what evaluations keep of the rows of versions that lost some, whichever those were; figures stay.

    One that is worked on begins anew, with the rows that are left; one that was planned on those alone is left as it
    is. A repeat changes nothing.
    """
    changed = {change.dataset_version: change.old_digest for change in applied.changes}
    of = parent_of(applied.erasure)
    some = applied.version_count > len(changed)  # of very many the event does not name all
    for evaluation in await store.EVALUATIONS.find(unit.session, parent=project_of(of)):
        version = evaluation.suite.dataset_version
        old = version in changed and domain.planned_on(evaluation, changed[version])
        if old or (some and version not in changed and parent_of(version) == of):
            await store.doom_batches(unit, evaluation.name)
            if evaluation.report.rows_digest:
                await store.doom(unit, project_of(of), evaluation.report.rows_digest)
            await change(unit, evaluation.name, domain.forget_rows)


async def fail(unit: Unit, name: str, failure: types.Failure) -> None:
    """Ends an evaluation without a report; a retry finds the answers that were given."""
    await change(unit, name, lambda evaluation, now: domain.fail(evaluation, failure, now))


async def stop(unit: Unit, name: str) -> None:
    """Ends an evaluation that was asked to stop."""
    await change(unit, name, _if(types.JOB_STATE_CANCELLING, types.JOB_STATE_CANCELLED))


async def expire(unit: Unit, name: str, limit: timedelta) -> None:
    """Gives up an evaluation that has been queued for longer than ``limit``."""

    def act(evaluation: evaluator.Evaluation, now: datetime) -> None:
        if evaluation.state == types.JOB_STATE_QUEUED and domain.waited_too_long(evaluation, limit, now):
            domain.enter(evaluation, types.JOB_STATE_EXPIRED, now)

    await change(unit, name, act)


async def change(unit: Unit, name: str, act: Act, etag: str = "") -> evaluator.Evaluation:
    """Reads an evaluation, acts on it, and where that changed it writes it, with an event for each state it entered."""
    evaluation = await store.EVALUATIONS.get(unit.session, name)
    before = evaluator.Evaluation()
    before.CopyFrom(evaluation)
    act(evaluation, unit.now)
    if evaluation == before:
        return evaluation
    await store.EVALUATIONS.update(unit, evaluation, etag)
    for entry in evaluation.history[len(before.history) :]:
        unit.emit(_event(evaluation, entry), evaluation.name)
    return evaluation


async def _insert(unit: Unit, evaluation: evaluator.Evaluation) -> None:
    await store.EVALUATIONS.insert(unit, evaluation)
    unit.emit(_event(evaluation, evaluation.history[0]), evaluation.name)


async def _settle(unit: Unit, name: str, plan: Plan, expected: types.JobState, then: types.JobState) -> None:
    """Moves an evaluation on under its plan, unless another one does the same work already."""
    evaluation = await store.EVALUATIONS.get(unit.session, name)
    if evaluation.state != expected:
        return
    twin = await store.effective(unit.session, evaluation.model_version, plan.suite_digest)
    if twin is not None and twin.name != name:
        await _yield_to(unit, evaluation, twin)
        return
    if evaluation.suite_digest != plan.suite_digest:
        await store.doom_batches(unit, name)  # answers to rows that are others by now

    def act(evaluation: evaluator.Evaluation, now: datetime) -> None:
        domain.adopt(evaluation, plan)
        domain.enter(evaluation, then, now, plan.note if then == types.JOB_STATE_QUEUED else "")

    await change(unit, name, act)


async def _yield_to(unit: Unit, evaluation: evaluator.Evaluation, twin: evaluator.Evaluation) -> None:
    """Ends an evaluation in favor of another for the same version and suite, which the gate then reads instead."""
    if evaluation.automatic and not twin.automatic:
        twin.automatic = True
        await store.EVALUATIONS.update(unit, twin)
        if is_over(JOB, twin.state):
            unit.emit(_event(twin, twin.history[-1]), twin.name)

    def act(evaluation: evaluator.Evaluation, now: datetime) -> None:
        evaluation.automatic = False
        domain.enter(evaluation, types.JOB_STATE_CANCELLED, now, f"`{twin.name}` does the same")

    await change(unit, evaluation.name, act)


def _if(state: int, then: types.JobState) -> Act:
    return lambda found, now: domain.enter(found, then, now) if found.state == state else None


def _event(evaluation: evaluator.Evaluation, entry: types.JobTransition) -> Message:
    """What is told of one entry of the evaluation's history."""
    name, version = evaluation.name, evaluation.model_version
    if entry.state == types.JOB_STATE_CREATED:
        return evaluator.EvaluationCreated(evaluation=name, model_version=version)
    if entry.state == types.JOB_STATE_SUCCEEDED:
        return evaluator.EvaluationCompleted(
            evaluation=name,
            model_version=version,
            incumbent=evaluation.incumbent,
            suite_digest=evaluation.suite_digest,
            report=evaluation.report,
            automatic=evaluation.automatic,
            dataset_version=evaluation.suite.dataset_version,
        )
    if is_over(JOB, entry.state):
        failure = evaluation.failure if evaluation.HasField("failure") else None
        return evaluator.EvaluationFailed(
            evaluation=name,
            model_version=version,
            failure=failure,
            state=entry.state,
            automatic=evaluation.automatic,
        )
    return evaluator.EvaluationChanged(evaluation=name, state=entry.state)
