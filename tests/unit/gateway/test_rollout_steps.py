"""The decision of a rollout step, as a table and as properties."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.steps import ADVANCE, HOLD, ROLL_BACK, complete, default_plan, next_step
from sluice.gateway import v1 as gateway

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)
Figures = gateway.ArmFigures
PLAN = complete(gateway.RolloutPlan())
STRICT = complete(gateway.RolloutPlan())
STRICT.max_p95.FromMilliseconds(150)


def seen(requests: int, errors: int = 0, p95_ms: float | None = 100.0) -> Figures:
    return Figures(requests=requests, errors=errors, p95_ms=p95_ms)


GOOD = seen(200)


@pytest.mark.parametrize(
    ("why", "candidate", "incumbent", "after_s", "decision", "words"),
    [
        ("all in order", seen(20), GOOD, 11, ADVANCE, "in order after 20"),
        ("too early", seen(20), GOOD, 3, HOLD, "7 s longer"),
        ("too few", seen(19), GOOD, 11, HOLD, "19 of 20"),
        ("nobody has reported", None, GOOD, 11, HOLD, "no usable figures"),
        ("nobody has reported of the incumbent", seen(20), None, 11, HOLD, "incumbent has had no requests"),
        ("the incumbent had none", seen(20), seen(0, p95_ms=None), 11, HOLD, "incumbent has had no requests"),
        ("no number", seen(20, p95_ms=math.nan), GOOD, 11, HOLD, "no usable figures"),
        ("no number of the incumbent", seen(20), seen(20, p95_ms=math.nan), 11, HOLD, "no usable figures"),
        ("more errors than requests", Figures(requests=3, errors=4), GOOD, 11, HOLD, "no usable figures"),
        ("one error of two proves nothing", seen(2, 1), GOOD, 11, HOLD, "2 of 20"),
        ("one error of twenty is in doubt", seen(20, 1), GOOD, 11, HOLD, "more are needed to tell"),
        ("one error of a hundred is allowed", seen(100, 1), GOOD, 11, ADVANCE, "1.0% failed"),
        ("all fail", seen(5, 5, None), GOOD, 0, ROLL_BACK, "5 of 5 requests failed"),
        ("all fail, but only four", seen(4, 4, None), GOOD, 0, HOLD, "4 of 20"),
        ("a tenth fails", seen(100, 10), GOOD, 0, ROLL_BACK, "10 of 100"),
        ("a tenth fails, as of the incumbent", seen(100, 10), seen(100, 10), 11, ADVANCE, "10.0% failed"),
        ("all fail everywhere", seen(50, 50, None), seen(50, 50, None), 11, HOLD, "has been answered"),
        ("too slow", seen(20, 0, 201.0), GOOD, 0, ROLL_BACK, "2 times the incumbent's 100 ms"),
        ("twice as slow is allowed", seen(20, 0, 200.0), GOOD, 11, ADVANCE, "p95 200 ms"),
        ("slow, but of few answers", seen(19, 0, 900.0), GOOD, 11, HOLD, "19 of 20"),
        ("slow, but the incumbent answered few", seen(20, 0, 900.0), seen(19), 11, ADVANCE, "in order"),
        ("endlessly slow", seen(20, 0, math.inf), GOOD, 0, ROLL_BACK, "p95 is inf ms"),
        ("starved", seen(3), GOOD, 3600, HOLD, "send traffic, or promote or roll back by hand"),
    ],
)  # fmt: skip
def test_decisions(
    why: str, candidate: Figures | None, incumbent: Figures | None, after_s: float, decision: int, words: str
) -> None:
    step = next_step(PLAN, 0, BEGAN, candidate, incumbent, BEGAN + timedelta(seconds=after_s))
    assert (step.decision, why) == (decision, why)
    assert words in step.reason
    assert step.alarm == (why == "starved")


def test_an_absolute_limit_rolls_back_and_with_few_answers_holds() -> None:
    assert next_step(STRICT, 0, BEGAN, seen(20, 0, 151.0), seen(50, 0, 140.0), BEGAN).decision == ROLL_BACK
    few = gateway.RolloutPlan()
    few.CopyFrom(STRICT)
    few.steps[0].min_requests = 2
    later = BEGAN + timedelta(seconds=11)
    assert next_step(few, 0, BEGAN, seen(5, 0, 151.0), GOOD, later).decision == HOLD
    assert next_step(few, 0, BEGAN, seen(5, 0, 149.0), GOOD, later).decision == ADVANCE


def test_defaults_are_written_out() -> None:
    assert [step.weight_percent for step in default_plan().steps] == [10, 50, 100]
    assert [step.hold.seconds for step in PLAN.steps] == [10, 10, 10]
    assert (PLAN.max_error_rate_increase, PLAN.max_p95_ratio, PLAN.starved_after.seconds) == (0.02, 2.0, 3600)
    own = gateway.RolloutPlan(steps=[gateway.RolloutStep(weight_percent=100)], max_error_rate_increase=0.0)
    assert complete(own).max_error_rate_increase == 0.0


def figures(requests: st.SearchStrategy[int], errors: st.SearchStrategy[int]) -> st.SearchStrategy[Figures]:
    latency = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))
    return st.builds(lambda r, e, p: Figures(requests=r, errors=e, p95_ms=p), requests, errors, latency)


counts = st.integers(min_value=-5, max_value=2000)
anything = st.one_of(st.none(), figures(counts, counts))
seconds = st.floats(min_value=-100, max_value=10_000)


@given(anything, anything, st.integers(0, 2), seconds)
def test_only_what_was_seen_in_full_advances(
    candidate: Figures | None, incumbent: Figures | None, step: int, after_s: float
) -> None:
    found = next_step(PLAN, step, BEGAN, candidate, incumbent, BEGAN + timedelta(seconds=after_s))
    assert found.reason
    if found.decision != ADVANCE:
        return
    assert candidate is not None and candidate.requests >= 20
    assert candidate.HasField("p95_ms") and not math.isnan(candidate.p95_ms)
    assert incumbent is not None and incumbent.requests > 0 and not math.isnan(incumbent.p95_ms)
    assert after_s >= 10 and not found.alarm


@given(st.integers(1, 500), st.integers(0, 500), st.integers(1, 200), st.integers(0, 500), seconds)
def test_more_errors_never_undo_a_rollback(
    requests: int, errors: int, more: int, incumbent_errors: int, after_s: float
) -> None:
    now = BEGAN + timedelta(seconds=after_s)
    incumbent = seen(500, min(incumbent_errors, 500))
    before = next_step(PLAN, 0, BEGAN, seen(requests, min(errors, requests)), incumbent, now)
    after = next_step(PLAN, 0, BEGAN, seen(requests + more, min(errors, requests) + more), incumbent, now)
    if before.decision == ROLL_BACK:
        assert after.decision == ROLL_BACK
