"""Live figures of the arms of rollouts, gathered from what workers report; it knows no limit and decides nothing.

They are kept in memory alone: after a restart a step gathers anew, which holds the rollout and never hurries it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from sluice.gateway import v1 as gateway


@dataclass
class ArmWindow:
    """What was seen of one version."""

    requests: int = 0
    errors: int = 0
    durations: list[int] = field(default_factory=list)
    first_tokens: list[int] = field(default_factory=list)

    def add(self, sample: gateway.ArmSample) -> None:
        """Counts a sample."""
        self.requests += sample.requests
        self.errors += sample.errors
        self.durations = _sum(self.durations, sample.duration_buckets)
        self.first_tokens = _sum(self.first_tokens, sample.ttft_buckets)

    def __add__(self, other: ArmWindow) -> ArmWindow:
        return ArmWindow(
            self.requests + other.requests,
            self.errors + other.errors,
            _sum(self.durations, other.durations),
            _sum(self.first_tokens, other.first_tokens),
        )

    def figures(self) -> gateway.ArmFigures:
        """The sums as figures; a percentile is the upper bound of its bucket."""
        found = gateway.ArmFigures(requests=self.requests, errors=self.errors)
        if (p95 := quantile(self.durations, 0.95)) is not None:
            found.p95_ms = p95
        if (ttft := quantile(self.first_tokens, 0.5)) is not None:
            found.ttft_p50_ms = ttft
        return found


class Figures:
    """Sums by endpoint, by table that admitted the requests, and by version."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[int, dict[str, ArmWindow]]] = {}

    def add(self, samples: Iterable[gateway.ArmSample]) -> None:
        """Counts samples."""
        for sample in samples:
            arms = self._seen.setdefault(sample.endpoint, {}).setdefault(sample.revision, {})
            arms.setdefault(sample.model_version, ArmWindow()).add(sample)

    def since(self, endpoint: str, revision: int) -> None:
        """Forgets what tables before ``revision`` admitted: a step is judged by requests of that step."""
        seen = self._seen.get(endpoint, {})
        self._seen[endpoint] = {number: arms for number, arms in seen.items() if number >= revision}

    def of(self, endpoint: str, version: str) -> gateway.ArmFigures | None:
        """The figures of a version; None when nobody has reported any."""
        found = [arms[version] for arms in self._seen.get(endpoint, {}).values() if version in arms]
        return sum(found, ArmWindow()).figures() if found else None

    def keep(self, endpoints: Collection[str]) -> None:
        """Forgets all other endpoints."""
        self._seen = {name: seen for name, seen in self._seen.items() if name in endpoints}


def quantile(counts: Sequence[int], share: float) -> float | None:
    """The upper bound in ms of the bucket where ``share`` is reached, infinite in the last; None when empty.

    Bucket i ends at 1 ms · 2^(i/4), as the contract of ArmSample says.
    """
    total, seen = sum(counts), 0
    for index, count in enumerate(counts):
        seen += count
        if count and seen >= share * total:
            return float("inf") if index == len(counts) - 1 else float(2 ** (index / 4))
    return None


def _sum(mine: Sequence[int], theirs: Sequence[int]) -> list[int]:
    """Sums bucket by bucket. The open bucket is the last of the longer list; all workers send the same number."""
    length = max(len(mine), len(theirs))
    pad = [*mine, *[0] * (length - len(mine))], [*theirs, *[0] * (length - len(theirs))]
    return [a + b for a, b in zip(*pad, strict=True)]
