"""The metrics by name. Each file holds one; its heavy imports are inside, so that an idle process stays small."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kit.rpc.errors import Invalid
from services.evaluator.metrics.bleu_4 import Bleu4
from services.evaluator.metrics.contract import Metric, MetricFailed, Statistics
from services.evaluator.metrics.exact_match import ExactMatch
from services.evaluator.metrics.rouge_l import RougeL

__all__ = ["METRICS", "Metric", "MetricFailed", "Statistics", "check_metrics"]

METRICS: dict[str, Callable[[], Metric]] = {"exact_match": ExactMatch, "rouge_l": RougeL, "bleu_4": Bleu4}


def check_metrics(names: Iterable[str]) -> None:
    """Raises Invalid for a metric that is not there."""
    for name in names:
        if name not in METRICS:
            known = ", ".join(sorted(METRICS))
            raise Invalid(
                f"metric `{name}` is not known; it is one of {known}",
                violations=[("evaluation.suite.metrics", "is not known")],
            )
