"""Traces and figures of a real process at an OTLP receiver over gRPC, and what a receiver that is away does to it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces_grpc

from kit import telemetry
from kit.auth import Identity
from kit.rpc.client import connect
from kit.rpc.ports import free_port
from sluice.gateway import v1 as gateway
from tests.gateway_parts import prepared, process

HOST = "tests.fakes.host_main"
LIST = "sluice.gateway.v1.EngineHostService/ListLoadedModels"


class Traces(traces_grpc.TraceServiceServicer):
    """Takes spans, as a collector does."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def Export(self, request: Any, context: Any) -> traces.ExportTraceServiceResponse:
        self.got += request.resource_spans
        return traces.ExportTraceServiceResponse()


class Metrics(metrics_grpc.MetricsServiceServicer):
    """Takes figures, as a collector does."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def Export(self, request: Any, context: Any) -> metrics.ExportMetricsServiceResponse:
        self.got += request.resource_metrics
        return metrics.ExportMetricsServiceResponse()


@pytest.fixture
def receiver() -> Iterator[tuple[str, Traces, Metrics]]:
    """Where a receiver listens, and what came there."""
    spans, figures = Traces(), Metrics()
    server = grpc.server(ThreadPoolExecutor(2))
    traces_grpc.add_TraceServiceServicer_to_server(spans, server)
    metrics_grpc.add_MetricsServiceServicer_to_server(figures, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}", spans, figures
    server.stop(0).wait()


def sender(batch: Any) -> dict[str, str]:
    """What a batch says of the process that sent it."""
    return {attribute.key: attribute.value.string_value for attribute in batch.resource.attributes}


async def live(folder: Path, endpoint: str, for_s: float = 0.0) -> list[dict[str, Any]]:
    """Runs an engine agent that sends what it sees to ``endpoint``, asks it something, and stops it after ``for_s``.

    It must end by itself, and soon: left alone, its exporters would repeat for longer than ``process`` waits. Its log.
    """
    settings, environ = prepared(folder)
    environ |= {"SLUICE_ENGINE": "fake", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "300"}
    identity = Identity.load(settings.identity_folder / "gateway.key")
    with process(HOST, environ, folder / "host.log"):
        async with connect(settings.address("engine-host"), token=lambda: identity.token("gateway")) as channel:
            stub: Any = gateway.EngineHostServiceStub(channel)
            with telemetry.with_traceparent(f"00-{'a' * 32}-{'b' * 16}-01"):
                await stub.ListLoadedModels(gateway.ListLoadedModelsRequest(), timeout=60, wait_for_ready=True)
        time.sleep(for_s)  # noqa: ASYNC251 - it is the other process that works
    return [json.loads(line) for line in (folder / "host.log").read_text().splitlines()]


async def test_spans_and_figures_arrive_and_say_whose_they_are(
    tmp_path: Path, receiver: tuple[str, Traces, Metrics]
) -> None:
    endpoint, spans, figures = receiver
    await live(tmp_path, endpoint)
    for batch in (*spans.got, *figures.got):
        assert sender(batch)["service.name"] == "engine-host" and sender(batch)["service.namespace"] == "sluice"
    found = {span.name: span for batch in spans.got for scope in batch.scope_spans for span in scope.spans}
    assert (found[LIST].trace_id.hex(), found[LIST].parent_span_id.hex()) == ("a" * 32, "b" * 16)
    points = {metric.name: metric for batch in figures.got for scope in batch.scope_metrics for metric in scope.metrics}
    assert points["sluice_rpc_total"].sum.data_points[0].as_int == 1
    assert points["sluice_rpc_seconds"].histogram.data_points[0].count == 1
    assert not list((tmp_path / "home" / "logs" / "traces").iterdir())


@pytest.mark.parametrize("silent", [pytest.param(False, marks=pytest.mark.prove), True])
async def test_a_receiver_that_is_away_holds_nothing_up_and_is_told_of_once(tmp_path: Path, silent: bool) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen()  # it takes the connection and never says a word
        port = listener.getsockname()[1] if silent else free_port()
        log = await live(tmp_path, f"http://127.0.0.1:{port}", for_s=1.5)
    said = [line["event"] for line in log if line["logger"].startswith("opentelemetry")]
    assert not [line for line in log if "exception" in line] and len(said) == len(set(said)) <= 6, said
