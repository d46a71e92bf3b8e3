"""The share of answers that are the reference, up to white space and Unicode form; it knows no synonyms."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from services.evaluator.metrics.contract import Kind, Statistics


class ExactMatch:
    """Equality after NFKC (Unicode Annex 15) and with every run of white space as one space. Case counts."""

    reads: Kind = "text"

    def measure(self, answer: str, reference: str) -> Statistics:
        """(equal, 1)."""
        return (float(_normal(answer) == _normal(reference)), 1.0)

    def score_row(self, statistics: Statistics) -> float:
        """1 or 0."""
        return self.aggregate(statistics)

    def aggregate(self, totals: Sequence[float]) -> float:
        """The mean."""
        return float(totals[0] / totals[1])


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())
