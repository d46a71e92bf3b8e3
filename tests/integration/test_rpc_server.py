"""Servers and channels: health, reflection, ports, repeats."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from rpc_echo import allow_all

from kit import telemetry
from kit.auth.access import authorize
from kit.rpc import errors
from kit.rpc.client import connect
from kit.rpc.interceptors import interceptors
from kit.rpc.server import Server, serve
from sluice.dataset import v1 as dataset

NAME = "sluice.dataset.v1.DatasetService"


class Datasets(dataset.DatasetServiceServicer):
    """Fails as often as it is told to, then answers; keeps what it was asked."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.requests, self.metadata = failures, list[Any](), dict[str, Any]()

    def _try(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        if len(self.requests) <= self.failures:
            raise errors.Unavailable("busy")

    async def GetDataset(self, request: Any, context: Any) -> dataset.GetDatasetResponse:
        self._try(request, context)
        return dataset.GetDatasetResponse()

    async def CreateDataset(self, request: Any, context: Any) -> dataset.CreateDatasetResponse:
        self._try(request, context)
        return dataset.CreateDatasetResponse()


async def serving(servicer: Datasets, address: str = "127.0.0.1:0") -> Server:
    layers = interceptors(allow_all, authorize)
    return await serve(address, [(dataset.add_DatasetServiceServicer_to_server, servicer)], layers)


async def test_health_says_what_serves_without_a_key() -> None:
    async with await serving(Datasets()) as server, connect(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", NAME):
            found = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert found.status == health_pb2.HealthCheckResponse.SERVING
        await server.set_serving(False)
        found = await stub.Check(health_pb2.HealthCheckRequest(service=NAME))
        assert found.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_reflection_lists_the_services() -> None:
    async with await serving(Datasets()) as server, connect(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        (found,) = [found async for found in stub.ServerReflectionInfo(iter([asked]))]
    names = {service.name for service in found.list_services_response.service}
    assert names == {NAME, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_a_port_that_is_taken_is_named() -> None:
    async with await serving(Datasets()) as server:
        with pytest.raises(errors.Unavailable, match=f"port {server.port} of 127.0.0.1 is taken"):
            await serving(Datasets(), server.address)


async def test_a_read_is_repeated_until_the_service_is_there() -> None:
    servicer = Datasets(failures=3)
    async with await serving(servicer) as server, connect(server.address) as channel:
        await dataset.DatasetServiceStub(channel).GetDataset(dataset.GetDatasetRequest(name="projects/p/datasets/d"))
    assert len(servicer.requests) == 4


async def test_a_write_is_repeated_under_one_request_id() -> None:
    servicer = Datasets(failures=1)
    request = dataset.CreateDatasetRequest(parent="projects/p")
    request.dataset.display_name, request.dataset.task_type = "d", "sft"
    async with await serving(servicer) as server, connect(server.address) as channel:
        await dataset.DatasetServiceStub(channel).CreateDataset(request)
    assert request.request_id == ""
    first, second = servicer.requests
    assert first.request_id == second.request_id != ""


async def test_without_retries_there_is_one_try() -> None:
    servicer = Datasets(failures=1)
    async with await serving(servicer) as server, connect(server.address, retries=False) as channel:
        with pytest.raises(grpc.RpcError):
            await dataset.DatasetServiceStub(channel).GetDataset(
                dataset.GetDatasetRequest(name="projects/p/datasets/d")
            )
    assert len(servicer.requests) == 1


async def test_the_token_is_asked_before_each_call_and_the_trace_goes_along() -> None:
    servicer, tokens = Datasets(), iter(["one", "two"])
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    request = dataset.GetDatasetRequest(name="projects/p/datasets/d")
    async with (
        await serving(servicer) as server,
        connect(server.address, token=lambda: next(tokens)) as channel,
    ):
        stub = dataset.DatasetServiceStub(channel)
        await stub.GetDataset(request)
        with telemetry.with_traceparent(traceparent):
            await stub.GetDataset(request)
    assert servicer.metadata["authorization"] == "Bearer two"
    assert servicer.metadata["traceparent"] == traceparent


async def test_a_dead_peer_gives_one_clear_sentence() -> None:
    server = await serving(Datasets())
    await server.stop(grace_s=0)
    async with connect(server.address, retries=False) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            await dataset.DatasetServiceStub(channel).GetDataset(dataset.GetDatasetRequest())
    fault = errors.from_rpc_error(caught.value, peer="the dataset service")
    assert isinstance(fault, errors.Unavailable)
    assert fault.message.startswith("the dataset service does not answer; check that it runs")
