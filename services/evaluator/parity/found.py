"""What a comparison with the recipe has found so far; how things are compared is not known here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from sluice.evaluator import v1 as evaluator


@dataclass
class Found:
    """What is known after some probes."""

    #: How far log-probabilities may differ, in nats.
    tolerance: float
    parity: evaluator.Parity = field(default_factory=evaluator.Parity)
    #: Tokens that the recipe answered, how many of them were compared, and the sum of their differences in nats.
    tokens: int = 0
    compared: int = 0
    apart: float = 0.0

    def differs(self, probe: str, what: str) -> None:
        """Records the first difference; ``probe`` is such as `prompt 3` and ``what`` holds nothing of its text."""
        self.parity.first_difference = self.parity.first_difference or f"{probe}: {what}"


def largest(values: Iterable[float]) -> tuple[float, bool]:
    """The largest of the finite values, and whether all are finite."""
    several = list(values)
    finite = [each for each in several if math.isfinite(each)]
    return max(finite, default=0.0), len(finite) == len(several)
