"""Live figures per endpoint and version: counts, errors by kind, latency histograms; knows no threshold and
no rollout.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

# Upper bounds in ms as the contract's ArmSample has them, 2^(i/4): 1 ms to about 12 minutes, within 19 %.
BOUNDS_MS: tuple[float, ...] = tuple(2 ** (step / 4) for step in range(79))


@dataclass(slots=True)
class Histogram:
    """Counts per bucket of `BOUNDS_MS` (the last bucket has no upper bound), and the sum in ms."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_MS) + 1))
    sum_ms: float = 0.0

    def observe(self, value_ms: float) -> None:
        self.counts[bisect_left(BOUNDS_MS, value_ms)] += 1
        self.sum_ms += value_ms

    def add(self, other: Histogram) -> None:
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.sum_ms += other.sum_ms

    def quantile(self, q: float) -> float | None:
        """The upper bound in ms of the bucket where the share `q` is reached (inf in the last); None when
        empty.
        """
        return quantile(self.counts, q)


def quantile(counts: Sequence[int], q: float) -> float | None:
    """See `Histogram.quantile`; for counts that came by another way."""
    total, seen = sum(counts), 0
    for bound, count in zip((*BOUNDS_MS, float("inf")), counts, strict=True):
        seen += count
        if count and seen >= q * total:
            return bound
    return None


@dataclass(slots=True)
class Series:
    """What one version did at one endpoint. `errors` counts requests by error kind; `requests` includes
    them. `revision` is that of the table which admitted them, 0 for sums over several.
    """

    endpoint: str
    version: str
    revision: int = 0
    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ttft: Histogram = field(default_factory=Histogram)
    total: Histogram = field(default_factory=Histogram)

    def add(self, other: Series) -> None:
        self.requests += other.requests
        self.errors.update(other.errors)
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.ttft.add(other.ttft)
        self.total.add(other.total)


class Figures:
    """Counts since the last drain beside totals since the start; single-threaded."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, str, int], Series] = {}
        self._totals: dict[tuple[str, str], Series] = {}
        self._in_flight: Counter[tuple[str, str]] = Counter()

    def began(self, endpoint: str, version: str) -> None:
        """A request was sent towards the version; `count` must follow."""
        self._in_flight[endpoint, version] += 1

    def count(
        self,
        endpoint: str,
        version: str,
        *,
        error: str | None,
        total_ms: float,
        revision: int = 0,
        ttft_ms: float | None = None,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
    ) -> None:
        """A request ended. `error` is its kind (`GatewayError.kind`); latencies are observed for successes
        only.
        """
        self._in_flight[endpoint, version] -= 1
        key = (endpoint, version, revision)
        series = self._since.get(key)
        if series is None:
            series = self._since[key] = Series(*key)
        series.requests += 1
        series.prompt_tokens += prompt_tokens or 0
        series.completion_tokens += completion_tokens or 0
        if error is not None:
            series.errors[error] += 1
            return
        series.total.observe(total_ms)
        if ttft_ms is not None:
            series.ttft.observe(ttft_ms)

    def in_flight(self, endpoint: str, version: str) -> int:
        """Requests of the version that have begun and not ended."""
        return self._in_flight[endpoint, version]

    def drain(self) -> list[Series]:
        """Deltas since the last drain, handed over: the caller owns them, and nothing is ever reported
        twice.
        """
        deltas = list(self._since.values())
        for delta in deltas:
            self._totals.setdefault((delta.endpoint, delta.version), Series(delta.endpoint, delta.version)).add(delta)
        self._since = {}
        self._in_flight = +self._in_flight
        return deltas

    def totals(self) -> list[Series]:
        """Sums since the start, drained or not; copies."""
        merged: dict[tuple[str, str], Series] = {}
        for series in (*self._totals.values(), *self._since.values()):
            key = (series.endpoint, series.version)
            merged.setdefault(key, Series(*key)).add(series)
        return list(merged.values())

    def prometheus(self, shown: Callable[[str], bool]) -> str:
        """The totals of the projects that `shown` is true of, in the Prometheus text format, version 0.0.4."""
        mine = [series for series in self.totals() if shown("/".join(series.endpoint.split("/", 2)[:2]))]
        lines = ["# TYPE sluice_gateway_requests_total counter"]
        lines += [f"sluice_gateway_requests_total{_labels(each)} {each.requests}" for each in mine]
        lines.append("# TYPE sluice_gateway_errors_total counter")
        for each in mine:
            for kind, count in sorted(each.errors.items()):
                lines.append(f"sluice_gateway_errors_total{_labels(each, kind=kind)} {count}")
        lines.append("# TYPE sluice_gateway_completion_tokens_total counter")
        lines += [f"sluice_gateway_completion_tokens_total{_labels(each)} {each.completion_tokens}" for each in mine]
        lines.append("# TYPE sluice_gateway_in_flight gauge")
        for each in mine:
            running = self.in_flight(each.endpoint, each.version)
            lines.append(f"sluice_gateway_in_flight{_labels(each)} {running}")
        for name in ("ttft", "total"):
            lines += _histogram_lines(f"sluice_gateway_{name}_seconds", mine, name)
        return "\n".join(lines) + "\n"


def _histogram_lines(metric: str, series: Iterable[Series], name: str) -> list[str]:
    lines = [f"# TYPE {metric} histogram"]
    for each in series:
        histogram: Histogram = getattr(each, name)
        seen = 0
        for bound, count in zip((*BOUNDS_MS, None), histogram.counts, strict=True):
            seen += count
            le = "+Inf" if bound is None else f"{bound / 1000:g}"
            lines.append(f"{metric}_bucket{_labels(each, le=le)} {seen}")
        lines.append(f"{metric}_sum{_labels(each)} {histogram.sum_ms / 1000:g}")
        lines.append(f"{metric}_count{_labels(each)} {seen}")
    return lines


def _labels(series: Series, **more: str) -> str:
    labels = {"endpoint": series.endpoint, "version": series.version, **more}
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
