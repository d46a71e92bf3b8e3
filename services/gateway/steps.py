"""The decision of a rollout step, on figures of both arms; pure: no clock, no store, no way to act on it.

Errors are judged by the lower bound of the candidate's share (Wilson 1927, one-sided 95 %): one error of two, or
of twenty, proves nothing, five of five do. Between the bound and the plain share lies the doubt that holds.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import NamedTuple

from sluice.gateway import v1 as gateway

HOLD = gateway.STEP_DECISION_HOLD
ADVANCE = gateway.STEP_DECISION_ADVANCE
ROLL_BACK = gateway.STEP_DECISION_ROLL_BACK

#: Requests below which a share of errors says nothing.
ENOUGH_FOR_ERRORS = 5
#: Answers below which a 95th percentile is one slow answer.
ENOUGH_FOR_P95 = 20
#: A look that decides nothing new is kept so often.
RUN_EVERY = timedelta(seconds=10)
Z = 1.645


class Step(NamedTuple):
    """What was decided, why, and whether somebody should look."""

    decision: gateway.StepDecision
    reason: str
    alarm: bool = False


def default_plan() -> gateway.RolloutPlan:
    """10 → 50 → 100 percent, each step at least 10 s and 20 requests."""
    return gateway.RolloutPlan(
        steps=[gateway.RolloutStep(weight_percent=weight, min_requests=20) for weight in (10, 50, 100)]
    )


def complete(plan: gateway.RolloutPlan) -> gateway.RolloutPlan:
    """The plan with every default written out."""
    full = gateway.RolloutPlan()
    full.CopyFrom(plan if plan.steps else default_plan())
    for step in full.steps:
        if not step.HasField("hold"):
            step.hold.seconds = 10
    if not full.HasField("max_error_rate_increase"):
        full.max_error_rate_increase = 0.02
    if not full.HasField("max_p95_ratio"):
        full.max_p95_ratio = 2.0
    if not full.HasField("starved_after"):
        full.starved_after.seconds = 3600
    return full


def next_step(
    plan: gateway.RolloutPlan,
    step: int,
    step_time: datetime,
    candidate: gateway.ArmFigures | None,
    incumbent: gateway.ArmFigures | None,
    now: datetime,
) -> Step:
    """What to do with a candidate in ``step`` of a complete plan, on the figures of this step alone.

    Roll back on what is proven, advance on what is seen and in order, hold on everything else: figures that are
    missing or no numbers never advance. The step whose weight is 100 is the promotion and is not judged.
    """
    if candidate is None or not _sound(candidate) or (incumbent is not None and not _sound(incumbent)):
        return _starved(plan, step_time, now, "there are no usable figures of the version yet")
    other = incumbent or gateway.ArmFigures()
    if reason := _proven_wrong(plan, candidate, other):
        return Step(ROLL_BACK, reason)
    wanted = max(1, plan.steps[step].min_requests)
    if candidate.requests < wanted:
        missing = f"{candidate.requests} of {wanted} requests have come"
        return _starved(plan, step_time, now, missing)
    if not other.requests:
        return _starved(plan, step_time, now, "the incumbent has had no requests to compare with")
    if reason := _in_doubt(plan, candidate, other):
        return _starved(plan, step_time, now, reason)
    left = (step_time + plan.steps[step].hold.ToTimedelta() - now).total_seconds()
    if left > 0:
        return Step(HOLD, f"in order so far; the step lasts {left:.0f} s longer")
    return Step(ADVANCE, f"in order after {candidate.requests} requests: {_summary(candidate)}")


def analysis_run(
    weight: int,
    step: Step,
    candidate: gateway.ArmFigures | None,
    incumbent: gateway.ArmFigures | None,
    now: datetime,
) -> gateway.AnalysisRun:
    """A look at the figures as a message."""
    run = gateway.AnalysisRun(
        weight_percent=weight,
        candidate=candidate,
        incumbent=incumbent,
        decision=step.decision,
        reason=step.reason,
    )
    run.time.FromDatetime(now)
    return run


def is_news(rollout: gateway.Rollout, run: gateway.AnalysisRun) -> bool:
    """Whether a look that holds is worth keeping: the first of a step, and then one every ten seconds."""
    if not rollout.analysis_runs or rollout.analysis_runs[-1].weight_percent != run.weight_percent:
        return True
    return run.time.ToDatetime() - rollout.analysis_runs[-1].time.ToDatetime() >= RUN_EVERY


def _proven_wrong(plan: gateway.RolloutPlan, candidate: gateway.ArmFigures, other: gateway.ArmFigures) -> str:
    limit = _share(other) + plan.max_error_rate_increase
    if candidate.requests >= ENOUGH_FOR_ERRORS and _lower_bound(candidate) > limit:
        return (
            f"{candidate.errors} of {candidate.requests} requests failed, which is more than the incumbent's "
            f"{_share(other):.1%} and the allowed {plan.max_error_rate_increase:.1%}"
        )
    if _answers(candidate) < ENOUGH_FOR_P95:
        return ""
    return _too_slow(plan, candidate, other)


def _in_doubt(plan: gateway.RolloutPlan, candidate: gateway.ArmFigures, other: gateway.ArmFigures) -> str:
    if _share(candidate) > _share(other) + plan.max_error_rate_increase:
        return f"{candidate.errors} of {candidate.requests} requests failed; more are needed to tell"
    if not candidate.HasField("p95_ms"):
        return "no request of the version has been answered"
    return _too_slow(plan, candidate, other)


def _too_slow(plan: gateway.RolloutPlan, candidate: gateway.ArmFigures, other: gateway.ArmFigures) -> str:
    if plan.HasField("max_p95") and candidate.p95_ms > plan.max_p95.ToTimedelta() / timedelta(milliseconds=1):
        return f"p95 is {candidate.p95_ms:.0f} ms, above the limit of {plan.max_p95.ToJsonString()}"
    if _answers(candidate) < ENOUGH_FOR_P95 or _answers(other) < ENOUGH_FOR_P95:
        return ""
    # p95 is infinite where the last, open bucket is reached; of two infinities nothing follows.
    if math.isfinite(other.p95_ms) and candidate.p95_ms > plan.max_p95_ratio * other.p95_ms:
        times = f"{plan.max_p95_ratio:g} times the incumbent's {other.p95_ms:.0f} ms"
        return f"p95 is {candidate.p95_ms:.0f} ms, above {times}"
    return ""


def _starved(plan: gateway.RolloutPlan, step_time: datetime, now: datetime, reason: str) -> Step:
    if now - step_time < plan.starved_after.ToTimedelta():
        return Step(HOLD, reason)
    since = plan.starved_after.ToJsonString()
    return Step(HOLD, f"{reason}, for more than {since}; send traffic, or promote or roll back by hand", True)


def _sound(figures: gateway.ArmFigures) -> bool:
    """Whether the figures can be what somebody counted."""
    return 0 <= figures.errors <= figures.requests and not math.isnan(figures.p95_ms) and figures.p95_ms >= 0


def _answers(figures: gateway.ArmFigures) -> int:
    return figures.requests - figures.errors if figures.HasField("p95_ms") else 0


def _share(figures: gateway.ArmFigures) -> float:
    return figures.errors / figures.requests if figures.requests else 0.0


def _lower_bound(figures: gateway.ArmFigures) -> float:
    """Wilson's lower bound of the share of errors."""
    n, share = figures.requests, _share(figures)
    middle = share + Z * Z / (2 * n)
    spread = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return (middle - spread) / (1 + Z * Z / n)


def _summary(figures: gateway.ArmFigures) -> str:
    return f"{_share(figures):.1%} failed, p95 {figures.p95_ms:.0f} ms"
