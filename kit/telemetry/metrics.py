"""Counters, histograms and gauges of a process, and their Prometheus text; it knows no figure by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from kit.telemetry.active import active

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
Label = str | int | float | bool


class Meters:
    """The instruments of a process, each made when it is first used."""

    def __init__(self, provider: MeterProvider, reader: InMemoryMetricReader) -> None:
        self.provider = provider
        self.reader = reader
        self._meter = provider.get_meter("sluice")
        self._instruments: dict[str, Any] = {}

    def counter(self, name: str) -> Any:
        """The counter of that name."""
        return self._instruments.get(name) or self._keep(name, self._meter.create_counter(name))

    def histogram(self, name: str) -> Any:
        """The histogram of that name; its buckets are those of seconds."""
        return self._instruments.get(name) or self._keep(
            name, self._meter.create_histogram(name, explicit_bucket_boundaries_advisory=SECONDS)
        )

    def gauge(self, name: str) -> Any:
        """The gauge of that name."""
        return self._instruments.get(name) or self._keep(name, self._meter.create_gauge(name))

    def _keep(self, name: str, instrument: Any) -> Any:
        self._instruments[name] = instrument
        return instrument


def count(name: str, amount: float = 1, **labels: Label) -> None:
    """Adds to a counter: ``count("sluice_rpc_total", method=...)``; labels have few values, never ids."""
    if active.meters:
        active.meters.counter(name).add(amount, labels)


def observe(name: str, value_s: float, **labels: Label) -> None:
    """Adds a duration in seconds to a histogram."""
    if active.meters:
        active.meters.histogram(name).record(value_s, labels)


def set_gauge(name: str, value: float, **labels: Label) -> None:
    """Sets a gauge."""
    if active.meters:
        active.meters.gauge(name).set(value, labels)


def render_metrics() -> str:
    """All figures as Prometheus text (exposition format 0.0.4), for tests; empty before ``configure``.

    No port of a service gives it away: figures leave a process by OTLP.
    """
    data = active.meters.reader.get_metrics_data() if active.meters else None
    if data is None:
        return ""
    lines = [
        line
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in sorted(scope.metrics, key=lambda found: found.name)
        for line in _metric_lines(metric)
    ]
    return "\n".join(lines) + "\n" if lines else ""


def _metric_lines(metric: Any) -> Iterable[str]:
    from opentelemetry.sdk.metrics.export import Histogram, Sum

    kind = "histogram" if isinstance(metric.data, Histogram) else "counter" if isinstance(metric.data, Sum) else "gauge"
    yield f"# TYPE {metric.name} {kind}"
    for point in metric.data.data_points:
        labels = dict(point.attributes)
        if kind != "histogram":
            yield f"{metric.name}{_labels(labels)} {point.value}"
            continue
        total = 0
        for bound, found in zip([*point.explicit_bounds, "+Inf"], point.bucket_counts, strict=True):
            total += found
            yield f"{metric.name}_bucket{_labels({**labels, 'le': bound})} {total}"
        yield f"{metric.name}_sum{_labels(labels)} {point.sum}"
        yield f"{metric.name}_count{_labels(labels)} {point.count}"


def _labels(labels: Mapping[str, Any]) -> str:
    def escaped(value: Any) -> str:
        return str(value).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    inside = ",".join(f'{key}="{escaped(value)}"' for key, value in labels.items())
    return f"{{{inside}}}" if inside else ""
