"""Quantiles and how far they are to be trusted; it knows no figure."""

import math
import random
from collections.abc import Sequence

CONFIDENCE = 0.95


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed; the middle of two for an even median."""
    ordered = sorted(values)
    place = share * len(ordered)
    if share == 0.5 and len(ordered) % 2 == 0:
        return (ordered[int(place) - 1] + ordered[int(place)]) / 2
    return ordered[max(math.ceil(place - 1e-9), 1) - 1]


def order_bounds(values: Sequence[float], share: float) -> tuple[float, float]:
    """Two values of the sample, below and above which the true quantile lies with 95 percent each.

    Exact for independent values of any distribution (David and Nagaraja, Order Statistics, 2003, section 7.1).
    Infinite on a side where the sample is too small to say anything: 5 values bound a median, 59 a p95 from above.
    """
    ordered, n = sorted(values), len(values)
    chances = [math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(n + 1)]
    low, high = -math.inf, math.inf
    for rank in range(1, n + 1):
        if sum(chances[rank:]) >= CONFIDENCE:
            low = ordered[rank - 1]
        if high == math.inf and sum(chances[:rank]) >= CONFIDENCE:
            high = ordered[rank - 1]
    return low, high


def bootstrap_bounds(
    values: Sequence[float], share: float, *, block: int = 10, rounds: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The same by resampling blocks of neighbors, for a series whose neighbors are alike (Künsch 1989)."""
    rng = random.Random(seed)
    starts = range(len(values) - min(block, len(values)) + 1)
    found = []
    for _ in range(rounds):
        sample: list[float] = []
        while len(sample) < len(values):
            start = rng.choice(starts)
            sample += values[start : start + block]
        found.append(quantile(sample[: len(values)], share))
    return quantile(found, 1 - CONFIDENCE), quantile(found, CONFIDENCE)
