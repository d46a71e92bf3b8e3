"""Puts traces, metrics and logs in place for a process and takes them away; it reads no environment."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit.telemetry import logs
from kit.telemetry.active import active

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from kit.telemetry.metrics import Meters

QUIET = ("grpc", "asyncio", "aiosqlite", "sqlalchemy", "nats", "httpx")


@dataclass
class Telemetry:
    """What ``configure`` put in place."""

    service: str
    tracers: TracerProvider
    meters: Meters
    handler: logging.Handler
    level_before: int

    def flush(self) -> None:
        """Writes out the spans that are still waiting."""
        self.tracers.force_flush()

    def shutdown(self) -> None:
        """Writes out what waits and takes everything away again; further spans and figures go nowhere."""
        self.tracers.shutdown()
        self.meters.provider.shutdown()
        root = logging.getLogger()
        root.removeHandler(self.handler)
        root.setLevel(self.level_before)
        self.handler.close()
        active.service, active.tracer, active.meters = "", None, None


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

    Spans go to ``otlp_endpoint`` (gRPC) if there is one, else to rotated files in ``trace_folder``, if any.
    Logs go to ``log_file``, else to stderr. Raises ValueError for an unknown level, RuntimeError when it was
    started before and not shut down.
    """
    if active.service:
        raise RuntimeError(f"telemetry already runs for `{active.service}`; call shutdown() first")
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    handler = logs.handler(log_level, log_file)
    about = Resource({"service.name": service, "service.namespace": "sluice", "service.version": version})
    tracers = TracerProvider(resource=about, shutdown_on_exit=False)
    if exporter := _exporter(service, otlp_endpoint, trace_folder):
        tracers.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    root = logging.getLogger()
    before, meters = root.level, _meters(about, otlp_endpoint)
    root.addHandler(handler)
    root.setLevel(log_level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    active.service, active.tracer, active.meters = service, tracers.get_tracer("sluice", version), meters
    return Telemetry(service, tracers, meters, handler, before)


def _exporter(service: str, otlp_endpoint: str, folder: Path | None) -> SpanExporter | None:
    if otlp_endpoint:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(endpoint=otlp_endpoint, insecure=not otlp_endpoint.startswith("https"))
    if folder:
        from kit.telemetry.trace_files import TraceFile

        return TraceFile(folder, service)
    return None


def _meters(about: Resource, otlp_endpoint: str) -> Meters:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader

    from kit.telemetry.metrics import Meters

    reader = InMemoryMetricReader()
    readers: list[MetricReader] = [reader]
    if otlp_endpoint:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

        insecure = not otlp_endpoint.startswith("https")
        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=otlp_endpoint, insecure=insecure)))
    provider = MeterProvider(metric_readers=readers, resource=about, shutdown_on_exit=False)
    return Meters(provider, reader)
