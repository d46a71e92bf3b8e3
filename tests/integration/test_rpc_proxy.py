"""The byte pass-through: a real gateway server before a real service, all four kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from rpc_echo import KINDS, SERVICE, Echo, Message, allow_all, answers, invoke, message

from kit.auth.access import authorize, bearer
from kit.rpc import contract, errors
from kit.rpc.client import connect
from kit.rpc.interceptors import interceptors
from kit.rpc.proxy import PassThrough
from kit.rpc.server import Server, serve
from sluice.dataset import v1 as dataset


def nobody(_: Any) -> Any:
    raise AssertionError("the gateway must leave it to the service to judge the call")


@asynccontextmanager
async def behind_gateway(
    echo: grpc.GenericRpcHandler, authenticate: Any = allow_all, **others: str
) -> AsyncIterator[tuple[grpc.aio.Channel, Server]]:
    layers = interceptors(authenticate, authorize)
    async with await serve("127.0.0.1:0", [], layers, generic_handlers=[echo]) as backend:
        addresses = {"echo": backend.address, **others}
        channels = {name: connect(address, retries=False) for name, address in addresses.items()}
        gateway = await serve(
            "127.0.0.1:0", [], interceptors(nobody, nobody),
            generic_handlers=[PassThrough(channels)],
            reflected=contract.service_names(), pool=contract.pool(),
        )  # fmt: skip
        async with gateway, connect(gateway.address, token="caller", retries=False) as channel:
            yield channel, backend
        for each in channels.values():
            await each.close()


async def code_at_the_end(call: Any, kind: str) -> grpc.StatusCode:
    """The code of a call; a stream tells it only to who has read all messages."""
    with suppress(grpc.RpcError):
        if kind.endswith("Stream"):
            async for _ in call:
                pass
    return await call.code()


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_passes_with_metadata_and_trailers(kind: str) -> None:
    echo = Echo()
    async with behind_gateway(echo) as (channel, _):
        expected = {
            "UnaryUnary": ["a"],
            "UnaryStream": ["a"] * 3,
            "StreamUnary": ["ab"],
            "StreamStream": ["a", "b"],
        }
        metadata = (
            ("sluice-note", "kept"),
            ("x-other", "dropped"),
            ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01"),
        )
        assert await answers(channel, kind, message("a"), message("b"), metadata=metadata) == expected[kind]
        assert echo.metadata["authorization"] == "Bearer caller"
        assert echo.metadata["sluice-note"] == "kept" and "x-other" not in echo.metadata
        assert echo.metadata["traceparent"].startswith(f"00-{'a' * 32}-")
        call = invoke(channel, kind, message())
        await code_at_the_end(call, kind)
        assert ("sluice-trailer", "kept") in list(await call.trailing_metadata())


async def test_a_key_sent_twice_is_for_the_service_to_refuse() -> None:
    def authenticate(metadata: Any) -> Any:
        bearer(metadata)
        return allow_all(metadata)

    twice = (("authorization", "Bearer one"), ("authorization", "Bearer two"))
    async with behind_gateway(Echo(), authenticate) as (channel, _):
        with pytest.raises(grpc.RpcError) as refused:
            await answers(channel, "UnaryUnary", message(), metadata=twice)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refusal_passes_with_its_details(kind: str) -> None:
    async with behind_gateway(Echo()) as (channel, _):
        with pytest.raises(grpc.RpcError) as caught:
            await answers(channel, kind, message(""))
    fault = errors.from_rpc_error(caught.value)
    assert isinstance(fault, errors.Invalid) and fault.violations[0][0] == "data"


class Holding(grpc.GenericRpcHandler):
    """Answers every call with one message, then waits; tells when it waits and ends."""

    def __init__(self) -> None:
        self.waiting, self.ended = asyncio.Event(), asyncio.Event()
        self.left_s: float | None = None

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if not details.method.startswith(f"/{SERVICE}/"):
            return None
        return grpc.stream_stream_rpc_method_handler(self._hold)

    async def _hold(self, requests: Any, context: grpc.aio.ServicerContext) -> None:
        self.left_s = context.time_remaining()
        try:
            await context.write(message().SerializeToString())
            self.waiting.set()
            await asyncio.Event().wait()
        finally:
            self.ended.set()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancelled_call_is_cancelled_behind_too(kind: str) -> None:
    holding = Holding()
    async with behind_gateway(holding) as (channel, _):
        call = invoke(channel, kind, message())
        waited = asyncio.ensure_future(call.code())
        await asyncio.wait_for(holding.waiting.wait(), 20)
        call.cancel()
        await asyncio.wait_for(holding.ended.wait(), 20)
        assert await waited is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("kind", KINDS)
async def test_a_deadline_holds_behind_too(kind: str) -> None:
    holding = Holding()
    async with behind_gateway(holding) as (channel, _):
        call = invoke(channel, kind, message(), timeout=0.9)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(holding.ended.wait(), 20)
    # gRPC sends three digits, rounded up: a millisecond a hop below one second, and ten above it.
    assert holding.left_s is not None and holding.left_s <= 0.9 + 2 * 0.001


@pytest.mark.parametrize("kind", KINDS)
async def test_a_service_that_dies_in_mid_call_is_named(kind: str) -> None:
    holding = Holding()
    async with behind_gateway(holding) as (channel, backend):
        call = invoke(channel, kind, message())
        done = asyncio.ensure_future(code_at_the_end(call, kind))
        await asyncio.wait_for(holding.waiting.wait(), 20)
        await backend.stop(grace_s=0)
        assert await asyncio.wait_for(done, 20) is grpc.StatusCode.UNAVAILABLE
        assert "the echo service" in (await call.details())


@pytest.mark.parametrize("kind", KINDS)
async def test_a_service_that_is_down_is_named(kind: str) -> None:
    async with behind_gateway(Echo()) as (channel, backend):
        await backend.stop(grace_s=0)
        with pytest.raises(grpc.RpcError) as caught:
            await answers(channel, kind, message())
    fault = errors.from_rpc_error(caught.value)
    assert isinstance(fault, errors.Unavailable) and fault.metadata == {"service": "echo"}
    assert "the echo service does not answer" in fault.message


@pytest.mark.parametrize("method", ["/sluice.nowhere.v1.X/Y", "/sluice.echo.v2.EchoService/X", "/x/y", "/x"])
async def test_an_unknown_method_is_told_what_is_here(method: str) -> None:
    async with behind_gateway(Echo()) as (channel, _):
        with pytest.raises(grpc.RpcError) as caught:
            await channel.unary_unary(method)(b"")
    fault = errors.from_rpc_error(caught.value)
    assert isinstance(fault, errors.Unimplemented) and fault.reason_name == "UNKNOWN_METHOD"
    assert "`echo`" in fault.message


class Flood(grpc.GenericRpcHandler):
    """Streams 200 messages of 1 MiB, counting those it got rid of."""

    def __init__(self) -> None:
        self.sent, self.all_sent = 0, asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return grpc.stream_stream_rpc_method_handler(self._flood) if "Echo" in details.method else None

    async def _flood(self, requests: Any, context: grpc.aio.ServicerContext) -> None:
        chunk = Message(data=b"x" * 2**20).SerializeToString()
        for _ in range(200):
            await context.write(chunk)
            self.sent += 1
        self.all_sent.set()


async def test_a_slow_reader_holds_the_service_back() -> None:
    flood = Flood()
    async with behind_gateway(flood) as (channel, _):
        call = invoke(channel, "UnaryStream", message())
        reader = aiter(call)
        await anext(reader)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flood.all_sent.wait(), 0.7)
        assert flood.sent < 10
        assert sum([len(response.data) async for response in reader]) == 199 * 2**20


async def test_reflection_of_the_gateway_covers_all_services() -> None:
    async with behind_gateway(Echo()) as (channel, _):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="sluice.registry.v1.ModelService"),
        ]
        listed, file = [found async for found in stub.ServerReflectionInfo(iter(asked))]
    names = {service.name for service in listed.list_services_response.service}
    assert {"sluice.dataset.v1.DatasetService", "sluice.trainer.v1.TrainingJobService"} <= names
    assert file.file_descriptor_response.file_descriptor_proto


async def test_a_generated_stub_works_through_the_gateway() -> None:
    class Datasets(dataset.DatasetServiceServicer):
        async def GetDataset(self, request: Any, context: Any) -> dataset.GetDatasetResponse:
            return dataset.GetDatasetResponse(dataset=dataset.Dataset(name=request.name))

    layers = interceptors(allow_all, lambda *_: None)
    servicers = [(dataset.add_DatasetServiceServicer_to_server, Datasets())]
    async with await serve("127.0.0.1:0", servicers, layers) as other:
        async with behind_gateway(Echo(), dataset=other.address) as (channel, _):
            request = dataset.GetDatasetRequest(name="projects/p/datasets/d")
            found = await dataset.DatasetServiceStub(channel).GetDataset(request)
    assert found.dataset.name == request.name
