"""Puts traces, metrics and logs in place for a process and takes them away; it reads no environment."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit.telemetry import logs
from kit.telemetry.active import active

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from kit.telemetry.metrics import Meters

#: Whoever takes traces and figures has so many seconds for the last of them; a process that is told to end ends.
STOP_S = 3.0
QUIET = ("grpc", "asyncio", "aiosqlite", "sqlalchemy", "nats", "httpx")


@dataclass
class Telemetry:
    """What ``configure`` put in place."""

    service: str
    tracers: TracerProvider
    meters: Meters
    handler: logging.Handler
    level_before: int
    #: Those that talk to an endpoint, which may be away.
    exporters: Sequence[SpanExporter | MetricExporter]

    def flush(self) -> None:
        """Writes out the spans that are still waiting."""
        self.tracers.force_flush()

    def shutdown(self) -> None:
        """Writes out what waits and takes everything away again; further spans and figures go nowhere."""
        overdue = threading.Timer(STOP_S, self._give_up)
        overdue.daemon = True
        overdue.start()
        self.tracers.shutdown()
        self.meters.provider.shutdown()
        overdue.cancel()
        root = logging.getLogger()
        root.removeHandler(self.handler)
        root.setLevel(self.level_before)
        self.handler.close()
        active.service, active.tracer, active.meters = "", None, None

    def _give_up(self) -> None:
        """Ends the repeats of an endpoint that is away; left alone, they go on for longer than a process may take."""
        for exporter in self.exporters:
            exporter.shutdown()


def service_name() -> str:
    """The service this process was configured for; empty before ``configure``."""
    return active.service


def configure(
    service: str,
    *,
    otlp_endpoint: str = "",
    trace_folder: Path | None = None,
    log_level: str = "INFO",
    log_file: Path | None = None,
    version: str = "",
) -> Telemetry:
    """Starts telemetry for this process.

    Spans and figures go to ``otlp_endpoint`` (gRPC) if there is one; else spans go to rotated files in
    ``trace_folder``, if any. Logs go to ``log_file``, else to stderr. Raises ValueError for an unknown level,
    RuntimeError when it was started before and not shut down.
    """
    if active.service:
        raise RuntimeError(f"telemetry already runs for `{active.service}`; call shutdown() first")
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    handler = logs.handler(log_level, log_file)
    about = Resource({"service.name": service, "service.namespace": "sluice", "service.version": version})
    tracers = TracerProvider(resource=about, shutdown_on_exit=False)
    spans, figures = _exporters(service, otlp_endpoint, trace_folder)
    if spans:
        tracers.add_span_processor(BatchSpanProcessor(spans, schedule_delay_millis=1000))
    root = logging.getLogger()
    before, meters = root.level, _meters(about, figures)
    root.addHandler(handler)
    root.setLevel(log_level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    active.service, active.tracer, active.meters = service, tracers.get_tracer("sluice", version), meters
    return Telemetry(service, tracers, meters, handler, before, [each for each in (spans, figures) if each])


def _exporters(
    service: str, otlp_endpoint: str, folder: Path | None
) -> tuple[SpanExporter | None, MetricExporter | None]:
    """What takes spans and what takes figures."""
    if otlp_endpoint:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        insecure = not otlp_endpoint.startswith("https")
        return (
            OTLPSpanExporter(endpoint=otlp_endpoint, insecure=insecure),
            OTLPMetricExporter(endpoint=otlp_endpoint, insecure=insecure),
        )
    if folder:
        from kit.telemetry.trace_files import TraceFile

        return TraceFile(folder, service), None
    return None, None


def _meters(about: Resource, exporter: MetricExporter | None) -> Meters:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader

    from kit.telemetry.metrics import Meters

    reader = InMemoryMetricReader()
    periodic = [PeriodicExportingMetricReader(exporter)] if exporter else []
    provider = MeterProvider(metric_readers=[reader, *periodic], resource=about, shutdown_on_exit=False)
    return Meters(provider, reader)
