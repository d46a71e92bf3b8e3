"""The gate as a table: policy, report and incumbent in, verdict and reasons out."""

import math

import pytest

from services.registry.gates import FAIL, INCONCLUSIVE, PASS, decide_gate, undecided
from sluice.evaluator import v1 as evaluator
from sluice.registry import v1 as registry

NAN = math.nan
INCUMBENT = "projects/p/models/m/versions/1"


def criterion(metric="f1", **rule):
    return registry.Criterion(metric=metric, **rule)


def metrics(**values):
    return [evaluator.Metric(name=name, value=value, low=value, high=value) for name, value in values.items()]


def report(rows=100, failed=0, incumbent=None, parity=None, **values):
    made = evaluator.Report(
        metrics=metrics(**values), incumbent_metrics=metrics(**(incumbent or {})), rows_scored=rows, rows_failed=failed
    )
    if parity is not None:
        made.parity.CopyFrom(evaluator.Parity(passed=parity, first_difference="prompt 3, token 1"))
    return made


@pytest.mark.parametrize(
    ("rule", "value", "other", "verdict"),
    [
        ({"at_least": 0.8}, 0.8, None, PASS),
        ({"at_least": 0.8}, 0.79, None, FAIL),
        ({"at_least": 0.8}, NAN, None, INCONCLUSIVE),
        ({"at_least": 0.8}, math.inf, None, INCONCLUSIVE),
        ({"at_least": NAN}, 0.9, None, FAIL),
        ({"at_most": 0.1}, 0.1, None, PASS),
        ({"at_most": 0.1}, 0.11, None, FAIL),
        ({"at_most": 0.1}, -math.inf, None, INCONCLUSIVE),
        ({"not_below_incumbent_by": 0.01}, 0.79, 0.8, PASS),
        ({"not_below_incumbent_by": 0.01}, 0.7899, 0.8, FAIL),
        ({"not_below_incumbent_by": -0.1}, 0.85, 0.8, FAIL),
        ({"not_below_incumbent_by": 0.01}, 0.8, NAN, INCONCLUSIVE),
        ({"not_below_incumbent_by": 0.01}, NAN, 0.8, INCONCLUSIVE),
        ({"not_below_incumbent_by": NAN}, 0.8, 0.8, FAIL),
    ],
)
def test_one_criterion(rule, value, other, verdict):
    policy = registry.GatePolicy(criteria=[criterion(**rule)])
    incumbent = {} if other is None else {"f1": other}
    decision = decide_gate(policy, report(f1=value, incumbent=incumbent), INCUMBENT if incumbent else "")
    assert decision.verdict == decision.results[0].verdict == verdict
    assert decision.reasons[0].startswith("f1 ")


def test_a_metric_that_is_missing_decides_nothing():
    decision = decide_gate(registry.GatePolicy(criteria=[criterion(at_least=0)]), report(bleu_4=1.0), "")
    assert decision.verdict == INCONCLUSIVE and not decision.results[0].HasField("value")
    assert "not in the report" in decision.reasons[0]


@pytest.mark.parametrize(
    ("drift", "verdict", "reason"),
    [
        (0.04, PASS, "log_prob_drift 0.04 by its job, wanted at most 0.05: holds"),
        (0.31, FAIL, "log_prob_drift 0.31 by its job, wanted at most 0.05: does not hold"),
        (NAN, INCONCLUSIVE, "log_prob_drift is told by no job, or no number"),
        (None, INCONCLUSIVE, "log_prob_drift is told by no job, or no number"),
    ],
)
def test_an_export_may_be_no_further_from_its_source_than_the_policy_lets_it(drift, verdict, reason):
    policy = registry.GatePolicy(criteria=[criterion("log_prob_drift", at_most=0.05)])
    figures = {} if drift is None else {"log_prob_drift": drift, "size_ratio": 0.3}
    decision = decide_gate(policy, report(f1=1.0), INCUMBENT, figures=figures)
    assert decision.verdict == verdict and decision.reasons == [reason]


def test_what_a_job_says_of_its_own_answers_is_no_evaluation():
    policy = registry.GatePolicy(criteria=[criterion("exact_match", at_least=0.5)])
    decision = decide_gate(policy, report(f1=1.0), "", figures={"exact_match": 1.0})
    assert decision.verdict == INCONCLUSIVE and "not in the report" in decision.reasons[0]


def test_without_an_incumbent_a_comparison_holds_by_itself():
    policy = registry.GatePolicy(criteria=[criterion(not_below_incumbent_by=0.01)])
    decision = decide_gate(policy, report(f1=0.1), "")
    assert decision.verdict == PASS and "no incumbent" in decision.reasons[0]


def test_with_an_incumbent_that_was_not_scored_it_does_not():
    policy = registry.GatePolicy(criteria=[criterion(not_below_incumbent_by=0.01)])
    decision = decide_gate(policy, report(f1=0.9), INCUMBENT)
    assert decision.verdict == INCONCLUSIVE and "the incumbent has none" in decision.reasons[0]


@pytest.mark.parametrize(
    ("rows", "min_rows", "verdict"), [(30, 30, PASS), (29, 30, INCONCLUSIVE), (0, 0, INCONCLUSIVE)]
)
def test_too_few_rows(rows, min_rows, verdict):
    policy = registry.GatePolicy(criteria=[criterion(at_least=0)], min_rows=min_rows)
    decision = decide_gate(policy, report(rows=rows, f1=1.0), "")
    assert decision.verdict == verdict
    assert verdict == PASS or "more are needed" in decision.reasons[-1]


def test_no_rows_and_no_criteria_never_pass():
    assert decide_gate(registry.GatePolicy(), report(rows=0), "").verdict == INCONCLUSIVE


@pytest.mark.parametrize(
    ("required", "parity", "comparable", "verdict"),
    [
        (True, True, True, PASS),
        (True, False, True, FAIL),
        (True, None, False, PASS),
        (True, None, True, INCONCLUSIVE),
        (False, False, True, PASS),
        (False, None, True, PASS),
    ],
)
def test_parity(required, parity, comparable, verdict):
    policy = registry.GatePolicy(criteria=[criterion(at_least=0)], parity_required=required)
    decision = decide_gate(policy, report(f1=1.0, parity=parity), "", comparable=comparable)
    assert decision.verdict == verdict
    assert verdict != FAIL or "prompt 3, token 1" in decision.reasons[-1]


def test_rows_the_engine_did_not_answer_fail():
    decision = decide_gate(registry.GatePolicy(criteria=[criterion(at_least=0)]), report(rows=9, failed=1, f1=1.0), "")
    assert decision.verdict == FAIL and "1 of 10 rows" in decision.reasons[-1]


def test_fail_weighs_more_than_inconclusive_and_each_criterion_is_told():
    policy = registry.GatePolicy(criteria=[criterion(at_least=0.5), criterion("bleu", at_least=0)], min_rows=1000)
    decision = decide_gate(policy, report(f1=0.1), "")
    assert decision.verdict == FAIL and len(decision.results) == 2 and len(decision.reasons) == 3
    assert decision.policy == policy


def test_no_report_is_no_verdict():
    decision = undecided(registry.GatePolicy(min_rows=3), "the engine did not start")
    assert (decision.verdict, list(decision.reasons)) == (INCONCLUSIVE, ["the engine did not start"])
