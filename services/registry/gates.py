"""The gate: a policy and a report in, a verdict with reasons out. Pure; it knows no store and no clock."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sluice.evaluator import v1 as evaluator
from sluice.registry import v1 as registry

PASS, FAIL, INCONCLUSIVE = registry.VERDICT_PASS, registry.VERDICT_FAIL, registry.VERDICT_INCONCLUSIVE
#: What a job alone can measure: how far weights are from those they were made of. Anything else that a job says of its
#: weights is for an evaluation to find.
OF_JOBS = ("log_prob_drift", "top1_agreement", "size_ratio", "served_drift")


def decide_gate(
    policy: registry.GatePolicy,
    report: evaluator.Report,
    incumbent: str,
    *,
    comparable: bool = False,
    figures: Mapping[str, float] | None = None,
) -> registry.GateDecision:
    """Judges a report under a policy.

    One criterion that fails makes the verdict FAIL; else one that cannot be decided, or too few rows, makes it
    INCONCLUSIVE. ``incumbent`` is the version the report compares with, empty where there was none.
    ``comparable`` says that the recipe left answers for the engine to be compared with. ``figures`` are those of the
    job; the ones in OF_JOBS are judged beside the metrics of the report.
    """
    told = {name: (figures or {})[name] for name in OF_JOBS if name in (figures or {})}
    values = {name: evaluator.Metric(name=name, value=value, low=value, high=value) for name, value in told.items()}
    values |= {metric.name: metric for metric in report.metrics}
    others = {metric.name: metric for metric in report.incumbent_metrics}
    decision = registry.GateDecision(policy=policy)
    for criterion in policy.criteria:
        result = _judge(criterion, values.get(criterion.metric), others.get(criterion.metric), bool(incumbent))
        decision.results.append(result)
        decision.reasons.append(_sentence(result))
    verdicts = [result.verdict for result in decision.results]
    for verdict, reason in (_rows(policy, report), _failures(report), _parity(policy, report, comparable)):
        if reason:
            verdicts.append(verdict)
            decision.reasons.append(reason)
    decision.verdict = FAIL if FAIL in verdicts else INCONCLUSIVE if INCONCLUSIVE in verdicts else PASS
    return decision


def undecided(policy: registry.GatePolicy, reason: str) -> registry.GateDecision:
    """The decision when there is no report at all."""
    return registry.GateDecision(policy=policy, verdict=INCONCLUSIVE, reasons=[reason])


def _judge(
    criterion: registry.Criterion,
    metric: evaluator.Metric | None,
    other: evaluator.Metric | None,
    has_incumbent: bool,
) -> registry.CriterionResult:
    result = registry.CriterionResult(criterion=criterion, verdict=INCONCLUSIVE)
    if metric is None or not math.isfinite(metric.value):
        return result
    result.value, result.low, result.high = metric.value, metric.low, metric.high
    rule = criterion.WhichOneof("rule")
    if rule == "not_below_incumbent_by":
        if not has_incumbent:
            result.verdict = PASS
            return result
        if other is None or not math.isfinite(other.value):
            return result
        result.incumbent_value = other.value
        result.threshold = other.value - criterion.not_below_incumbent_by
    else:
        result.threshold = criterion.at_least if rule == "at_least" else criterion.at_most
    holds = metric.value <= result.threshold if rule == "at_most" else metric.value >= result.threshold
    result.verdict = PASS if holds else FAIL
    return result


def _rows(policy: registry.GatePolicy, report: evaluator.Report) -> tuple[registry.Verdict, str]:
    wanted = max(policy.min_rows, 1)  # nothing was ever shown by no rows at all
    missing = wanted - report.rows_scored
    if missing <= 0:
        return PASS, ""
    return (
        INCONCLUSIVE,
        f"{report.rows_scored} of the {wanted} rows that the policy wants could be scored: {missing} more are needed",
    )


def _failures(report: evaluator.Report) -> tuple[registry.Verdict, str]:
    if not report.rows_failed:
        return PASS, ""
    return (
        FAIL,
        f"the engine did not answer {report.rows_failed} of {report.rows_failed + report.rows_scored} rows",
    )


def _parity(policy: registry.GatePolicy, report: evaluator.Report, comparable: bool) -> tuple[registry.Verdict, str]:
    if not policy.parity_required or report.parity.passed:
        return PASS, ""
    if not report.HasField("parity"):
        return (INCONCLUSIVE, "the engine was not compared with the recipe") if comparable else (PASS, "")
    return FAIL, f"the engine does not serve what was trained: {report.parity.first_difference}"


def _sentence(result: registry.CriterionResult) -> str:
    metric, rule = result.criterion.metric, result.criterion.WhichOneof("rule")
    if not result.HasField("value"):
        whose = "told by no job" if metric in OF_JOBS else "not in the report"
        return f"{metric} is {whose}, or no number"
    if rule == "not_below_incumbent_by" and not result.HasField("incumbent_value"):
        missing = "there is no incumbent to compare with" if result.verdict == PASS else "the incumbent has none"
        return f"{metric} is {result.value:.4g}; {missing}"
    relation = "at most" if rule == "at_most" else "at least"
    against = (
        f" (incumbent {result.incumbent_value:.4g} − {result.criterion.not_below_incumbent_by:.4g})"
        if result.HasField("incumbent_value")
        else ""
    )
    word = "holds" if result.verdict == PASS else "does not hold"
    interval = "by its job" if metric in OF_JOBS else f"[{result.low:.4g}, {result.high:.4g}]"
    found = f"{metric} {result.value:.4g} {interval}"
    return f"{found}, wanted {relation} {result.threshold:.4g}{against}: {word}"
