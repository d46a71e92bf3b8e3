"""Confidence intervals by resampling rows; what is measured is not known here."""

from __future__ import annotations

from collections.abc import Sequence

from services.evaluator.metrics.contract import Metric, Statistics

RESAMPLES = 1000
SEED = 0
LOW, HIGH = 2.5, 97.5


def interval(metric: Metric, rows: Sequence[Statistics]) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval (Efron 1979) of a metric over at least one row; always the same.

    A resample is drawn as how often each row is in it, so that its totals are one product: (rows,) × (rows, k).
    """
    import numpy as np

    statistics = np.asarray(rows, dtype=np.float64)
    random = np.random.default_rng(SEED)
    count = len(rows)
    chances = np.full(count, 1 / count)
    scores = [metric.aggregate((random.multinomial(count, chances) @ statistics).tolist()) for _ in range(RESAMPLES)]
    low, high = np.percentile(scores, [LOW, HIGH])
    return float(low), float(high)
