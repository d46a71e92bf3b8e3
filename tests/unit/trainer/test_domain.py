"""What the domain does to a job in each state: tables."""

from contextlib import nullcontext
from datetime import timedelta

import pytest
from training_jobs import START, S, job_in, later, new_job, sft_spec

from kit.rpc.errors import Invalid, StateConflict
from services.trainer import domain
from services.trainer.spec import check_known, check_shape, with_defaults, with_recipe
from sluice.errors import v1 as errors
from sluice.lifecycle import JOB
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types


@pytest.mark.parametrize("old", sorted(set(S) - {"UNSPECIFIED"}))
@pytest.mark.parametrize("new", sorted(set(S) - {"UNSPECIFIED"}))
def test_a_job_takes_the_steps_of_the_table_and_no_others(old: str, new: str) -> None:
    job = job_in(old)
    if S[new] in JOB[S[old]]:
        domain.enter(job, S[new], later(), "why")
        assert (job.history[-1].state, job.history[-1].note) == (S[new], "why")
        assert job.history[-1].time.ToDatetime(START.tzinfo) == later()
    else:
        with pytest.raises(StateConflict, match=f"is {old}, from which it cannot become {new}"):
            domain.enter(job, S[new], later())
        assert job == job_in(old)


ASKED = {  # by state: what cancel, pause, resume and retry make of it; "" is a refusal
    "CREATED": "CANCELLED - - -",
    "VALIDATING": "CANCELLED - - -",
    "QUEUED": "CANCELLED - - -",
    "PREPARING": "CANCELLING - - -",
    "RUNNING": "CANCELLING PAUSING - -",
    "PAUSING": "CANCELLING PAUSING - -",
    "PAUSED": "CANCELLED PAUSED QUEUED -",
    "CANCELLING": "CANCELLING - - -",
    "SUCCEEDED": "- - - -",
    "FAILED": "- - - QUEUED",
    "CANCELLED": "CANCELLED - - -",
    "EXPIRED": "- - - -",
}
VERBS = (domain.cancel, domain.pause, domain.resume, domain.retry)


@pytest.mark.parametrize("state", ASKED)
def test_what_people_ask_for(state: str) -> None:
    for ask, expected in zip(VERBS, ASKED[state].split(), strict=True):
        job = job_in(state)
        if expected == "-":
            with pytest.raises(StateConflict):
                ask(job, later())
        else:
            ask(job, later())
            assert job.state == S[expected], ask.__name__


def told(outcome: str = "", epoch: int = 1, **fields: object) -> trainer.ReportAttemptRequest:
    number = trainer.AttemptOutcome.Value(f"ATTEMPT_OUTCOME_{outcome or 'UNSPECIFIED'}")
    return trainer.ReportAttemptRequest(training_job="x", epoch=epoch, outcome=number, **fields)


RESULT = trainer.TrainingResult(metrics={"final_loss": 0.5})
FAILURE = types.Failure(reason=errors.ERROR_REASON_DIVERGED, message="the loss is no number")
ENDS = {  # by state: what SUCCEEDED, PAUSED, CANCELLED, FAILED and LOST make of it
    "PREPARING": "SUCCEEDED QUEUED QUEUED FAILED QUEUED",
    "RUNNING": "SUCCEEDED QUEUED QUEUED FAILED QUEUED",
    "PAUSING": "SUCCEEDED PAUSED PAUSED FAILED PAUSED",
    "CANCELLING": "SUCCEEDED CANCELLED CANCELLED FAILED CANCELLED",
}
OUTCOMES = ("SUCCEEDED", "PAUSED", "CANCELLED", "FAILED", "LOST")


@pytest.mark.parametrize("state", ENDS)
def test_what_the_end_of_an_attempt_makes_of_a_job(state: str) -> None:
    for outcome, expected in zip(OUTCOMES, ENDS[state].split(), strict=True):
        job = job_in(state)
        domain.report(job, told(outcome, result=RESULT, failure=FAILURE), later())
        assert job.state == S[expected], outcome
        assert job.attempts[0].end_time.ToDatetime(START.tzinfo) == later()
        assert job.HasField("result") == (expected == "SUCCEEDED")
        assert job.HasField("failure") == (expected == "FAILED")


@pytest.mark.parametrize("state", ["QUEUED", "PAUSED", "SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED"])
def test_a_job_without_a_live_attempt_takes_no_report(state: str) -> None:
    with pytest.raises(domain.StaleEpoch) as raised:
        domain.report(job_in(state), told(), later())
    assert raised.value.reason == errors.ERROR_REASON_STALE_EPOCH


@pytest.mark.parametrize("epoch", [1, 3])
def test_only_the_present_epoch_is_heard(epoch: int) -> None:
    job = job_in("RUNNING")
    domain.lose(job, "gone", later())
    domain.claim(job, "host", later())
    with pytest.raises(domain.StaleEpoch):
        domain.report(job, told("SUCCEEDED", epoch, result=RESULT), later())
    assert job.state == S["PREPARING"]


def test_a_last_report_that_comes_twice_changes_nothing() -> None:
    job = job_in("RUNNING")
    domain.report(job, told("SUCCEEDED", result=RESULT), later())
    before = job.SerializeToString(deterministic=True)
    domain.report(job, told("SUCCEEDED", result=RESULT), later(99))
    assert job.SerializeToString(deterministic=True) == before
    with pytest.raises(domain.StaleEpoch):
        domain.report(job, told("FAILED", failure=FAILURE), later(99))


def test_a_success_needs_a_result() -> None:
    with pytest.raises(Invalid):
        domain.report(job_in("RUNNING"), told("SUCCEEDED"), later())


def test_progress_and_the_first_step_are_taken_in() -> None:
    job = job_in("PREPARING")
    progress = types.Progress(done=3, total=9, phase="training", figures={"loss": 1.5})
    domain.report(job, told(state=S["RUNNING"], progress=progress, resumed_from_step=2), later())
    assert (job.state, job.progress.done, job.progress.figures["loss"]) == (S["RUNNING"], 3, 1.5)
    assert job.progress.time.ToDatetime(START.tzinfo) == later()
    domain.report(job, told(state=S["RUNNING"]), later(61))
    assert (job.progress.done, job.attempts[0].resumed_from_step) == (3, 2)


def lose_attempts(job: trainer.TrainingJob, count: int, at_s: float = 60) -> None:
    for number in range(count):
        if job.state == S["QUEUED"]:
            domain.claim(job, "host", later(at_s + number))
        domain.lose(job, "the agent is gone", later(at_s + number))


def test_a_job_fails_when_its_worker_vanished_as_often_as_it_allows() -> None:
    job = job_in("QUEUED", max_attempts=2)
    lose_attempts(job, 1)
    assert job.state == S["QUEUED"]
    lose_attempts(job, 1, 70)
    assert (job.state, job.failure.reason) == (S["FAILED"], errors.ERROR_REASON_WORKER_LOST)
    assert [attempt.epoch for attempt in job.attempts] == [1, 2]


def test_retry_counts_attempts_anew_and_goes_on_with_the_epochs() -> None:
    job = job_in("QUEUED", max_attempts=2)
    lose_attempts(job, 2)
    domain.retry(job, later(100))
    assert not job.HasField("failure")
    lose_attempts(job, 1, 110)
    assert (job.state, job.attempts[-1].epoch) == (S["QUEUED"], 3)
    lose_attempts(job, 1, 120)
    assert job.state == S["FAILED"]


def test_the_time_limit_counts_what_all_attempts_took_and_no_waiting() -> None:
    job = new_job()
    job.spec.time_limit.FromTimedelta(timedelta(seconds=100))
    job.state = S["QUEUED"]
    domain.claim(job, "host", later(0))
    domain.lose(job, "gone", later(60))
    domain.claim(job, "host", later(10_000))
    assert domain.time_limit_failure(job, later(10_040)) is None
    failure = domain.time_limit_failure(job, later(10_041))
    assert failure is not None
    assert failure.reason == errors.ERROR_REASON_TIME_LIMIT
    assert domain.time_used(job, later(9_000)) == timedelta(seconds=60), "a clock set back takes nothing away"


@pytest.mark.parametrize("state", sorted(set(S) - {"UNSPECIFIED"}))
def test_only_a_job_that_waits_can_wait_too_long(state: str) -> None:
    job, limit = job_in(state), timedelta(seconds=1000)
    assert domain.waited_too_long(job, limit, later(5000)) == (state in ("CREATED", "VALIDATING", "QUEUED", "PAUSED"))
    assert not domain.waited_too_long(job, limit, later(500))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"hidden_size": 192, "heads": 4, "kv_heads": 2}, ""),
        ({"hidden_size": 32, "heads": 1}, ""),
        ({"hidden_size": 16, "heads": 1}, "no engine serves heads of 16; choose them so that"),
        ({"hidden_size": 100, "heads": 3}, "no engine serves heads of 33.3333; choose"),
        ({"hidden_size": 128, "heads": 4, "kv_heads": 3}, "has 3 kv_heads, which must divide its 4 heads"),
    ],
)
def test_a_shape_that_no_engine_serves_is_refused(shape: dict[str, int], said: str) -> None:
    with pytest.raises(Invalid, match=said) if said else nullcontext():
        check_shape(trainer.ModelShape(**shape))


def test_defaults_are_filled_in_once() -> None:
    filled = with_defaults(sft_spec(), "no-regression")
    assert (filled.endpoint, filled.gate_policy, filled.max_attempts) == ("m", "no-regression", 3)
    assert (filled.lora.rank, filled.lora.alpha) == (16, 32)
    assert filled.time_limit.ToTimedelta() == timedelta(days=7)
    assert with_defaults(filled, "other") == filled
    full = with_defaults(sft_spec(full=trainer.FullTuner()), "g")
    assert full.WhichOneof("tuner") == "full"


def test_the_recipe_is_that_of_the_task_type() -> None:
    task_type = registry.TaskType(name="taskTypes/dpo", recipe="dpo")
    assert with_recipe(trainer.TrainingJobSpec(task_type="dpo"), task_type).WhichOneof("recipe") == "dpo"
    with pytest.raises(Invalid, match="`sft`, but task_type `dpo` takes `dpo`"):
        with_recipe(sft_spec(task_type="dpo"), task_type)


def test_what_another_version_asks_for_is_never_left_undone() -> None:
    check_known(sft_spec())
    unknown_in_sft = sft_spec().SerializeToString() + bytes([8 << 3 | 2, 4, 3 << 3 | 2, 2, 8, 1])
    with pytest.raises(Invalid, match=r"spec\.sft has a field of another version of Sluice, number 3"):
        check_known(trainer.TrainingJobSpec.FromString(unknown_in_sft))
