"""Metrics that are the mean over rows of a score of each; which score is not known here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.evaluator.metrics.contract import Kind, Statistics


@dataclass(frozen=True)
class Mean:
    """The mean of ``score(answer, reference)``."""

    reads: Kind
    score: Callable[[str, str], float]

    def measure(self, answer: str, reference: str) -> Statistics:
        """(score, 1)."""
        return (float(self.score(answer, reference)), 1.0)

    def score_row(self, statistics: Statistics) -> float:
        """The score."""
        return self.aggregate(statistics)

    def aggregate(self, totals: Sequence[float]) -> float:
        """The mean."""
        return float(totals[0] / totals[1])
