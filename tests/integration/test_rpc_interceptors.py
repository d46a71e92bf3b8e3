"""The one interceptor list over real gRPC, on all four kinds of rpc."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.trace import SpanKind
from rpc_echo import KINDS, Echo, allow_all, answers, invoke, message

from kit import telemetry
from kit.auth.access import authorize
from kit.auth.principal import Principal
from kit.rpc import errors
from kit.rpc.call import current_call
from kit.rpc.client import connect
from kit.rpc.interceptors import interceptors
from kit.rpc.server import serve
from kit.telemetry.trace_files import read_traces
from sluice.errors import v1 as reasons
from sluice.types import v1 as types


@asynccontextmanager
async def echoing(
    echo: Echo, authenticate: Any = allow_all, authorize: Any = authorize, token: Any = "t"
) -> AsyncIterator[grpc.aio.Channel]:
    layers = interceptors(authenticate, authorize)
    async with await serve("127.0.0.1:0", [], layers, generic_handlers=[echo]) as server:
        async with connect(server.address, token=token) as channel:
            yield channel


async def refused(channel: grpc.aio.Channel, kind: str, *messages: Any, **options: Any) -> errors.Fault:
    with pytest.raises(grpc.RpcError) as caught:
        await answers(channel, kind, *messages, **options)
    return errors.from_rpc_error(caught.value)


def test_the_order_is_the_one_that_the_style_asks_for() -> None:
    names = [type(layer).__name__ for layer in interceptors(allow_all, authorize)]
    assert names == ["Telemetry", "AccessLog", "Auth", "Faults", "Validation", "Encoding"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_good_call_passes_and_sees_its_caller(kind: str) -> None:
    seen = []
    echo = Echo(lambda _: seen.append(current_call()))
    async with echoing(echo) as channel:
        expected = {
            "UnaryUnary": ["a"],
            "UnaryStream": ["a"] * 3,
            "StreamUnary": ["ab"],
            "StreamStream": ["a", "b"],
        }
        assert await answers(channel, kind, message("a"), message("b", name="")) == expected[kind]
    assert {call.principal.name for call in seen} == {"projects/p/apiKeys/k"}
    assert {call.method for call in seen} == {f"/sluice.echo.v1.EchoService/{kind}"}
    assert echo.metadata["authorization"] == "Bearer t"


@pytest.mark.parametrize("kind", KINDS)
async def test_who_is_not_known_is_refused(kind: str) -> None:
    def authenticate(metadata: Any) -> Principal:
        raise errors.Unauthenticated("no key was sent", reason=reasons.ERROR_REASON_MISSING_CREDENTIALS)

    echo = Echo()
    async with echoing(echo, authenticate) as channel:
        fault = await refused(channel, kind, message())
    assert isinstance(fault, errors.Unauthenticated) and fault.reason_name == "MISSING_CREDENTIALS"
    assert echo.started == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["projects/q/datasets/d/uploads/u", ""])
async def test_another_project_and_none_are_refused_before_the_servicer_starts(kind: str, name: str) -> None:
    echo = Echo()
    async with echoing(echo) as channel:
        fault = await refused(channel, kind, message(name=name))
    assert isinstance(fault, errors.Denied) and fault.reason_name == "ROLE_REQUIRED"
    assert echo.started == 0


@pytest.mark.parametrize("kind", ["StreamUnary", "StreamStream"])
async def test_an_empty_stream_is_judged_too(kind: str) -> None:
    echo = Echo()
    async with echoing(echo) as channel:
        assert isinstance(await refused(channel, kind), errors.Denied)
    assert echo.started == 0


@pytest.mark.parametrize("kind", ["StreamUnary", "StreamStream"])
async def test_a_stream_cannot_change_to_a_project_of_others(kind: str) -> None:
    async with echoing(Echo()) as channel:
        other = message(name="projects/q/datasets/d/uploads/u")
        assert isinstance(await refused(channel, kind, message(), other), errors.Denied)


@pytest.mark.parametrize("name", ["projects//datasets/d", "projects/p/../q", "projects/P/datasets/d"])
async def test_a_malformed_name_does_not_pass_for_no_project(name: str) -> None:
    async with echoing(Echo(), authorize=lambda *_: None) as channel:
        assert isinstance(await refused(channel, "UnaryUnary", message(name=name)), errors.Invalid)


async def test_a_method_that_declares_no_access_is_refused() -> None:
    echo = Echo()
    async with echoing(echo, authorize=lambda *_: None) as channel:
        stub = channel.unary_unary("/sluice.echo.v1.EchoService/Undeclared", lambda found: found.SerializeToString())
        with pytest.raises(grpc.RpcError) as caught:
            await stub(message())
    assert isinstance(errors.from_rpc_error(caught.value), errors.Denied)
    assert echo.started == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_the_rules_of_the_contract_hold(kind: str) -> None:
    echo = Echo()
    async with echoing(echo) as channel:
        fault = await refused(channel, kind, message(""))
    assert isinstance(fault, errors.Invalid) and fault.reason_name == "INVALID_FIELD"
    assert [field for field, _ in fault.violations] == ["data"]
    assert "`data`" in fault.message
    assert echo.started == 0


@pytest.mark.parametrize("kind", ["StreamUnary", "StreamStream"])
async def test_the_rules_hold_after_the_first_message(kind: str) -> None:
    echo = Echo()
    async with echoing(echo) as channel:
        fault = await refused(channel, kind, message("a"), message("b"), message(""))
    assert isinstance(fault, errors.Invalid) and fault.violations[0][0] == "data"
    assert echo.started == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_an_unknown_exception_keeps_its_text_to_the_log(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Any) -> None:
        raise KeyError("the patient's name")

    async with echoing(Echo(fail)) as channel:
        with caplog.at_level(logging.ERROR):
            fault = await refused(channel, kind, message())
    assert isinstance(fault, errors.Internal) and fault.reason_name == "INTERNAL"
    assert "patient" not in f"{fault.message}{fault.metadata}"
    assert fault.metadata["trace_id"] in fault.message
    assert [record.fields["error_id"] for record in caplog.records] == [fault.metadata["trace_id"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_exception_of_the_authenticator_hides_its_text_too(kind: str) -> None:
    def authenticate(_: Any) -> Principal:
        raise KeyError("secret")

    async with echoing(Echo(), authenticate) as channel:
        fault = await refused(channel, kind, message())
    assert isinstance(fault, errors.Internal) and "secret" not in fault.message


@pytest.mark.parametrize("kind", KINDS)
async def test_a_fault_arrives_with_its_details(kind: str) -> None:
    def fail(_: Any) -> None:
        raise errors.NotFound("upload `u` does not exist", resource=("Upload", "u"), metadata={"near": "v"})

    async with echoing(Echo(fail)) as channel:
        fault = await refused(channel, kind, message())
    assert isinstance(fault, errors.NotFound)
    assert (fault.message, fault.resource, fault.metadata) == (
        "upload `u` does not exist", ("Upload", "u"), {"near": "v"}
    )  # fmt: skip


async def test_a_full_disk_is_told_without_the_words_of_the_driver() -> None:
    def fail(_: Any) -> None:
        raise OSError(28, "No space left on device", "/srv/blobs/ab")

    async with echoing(Echo(fail)) as channel:
        fault = await refused(channel, "UnaryUnary", message())
    assert isinstance(fault, errors.Exhausted) and fault.reason_name == "STORAGE_FULL"
    assert "/srv" not in fault.message


async def test_a_message_above_the_limit_is_told_with_both_sizes() -> None:
    layers = interceptors(allow_all, authorize)
    async with await serve("127.0.0.1:0", [], layers, generic_handlers=[Echo()], max_message_bytes=1000) as server:
        async with connect(server.address) as channel:
            fault = await refused(channel, "UnaryUnary", message("x" * 2000))
    assert isinstance(fault, errors.Exhausted) and fault.reason_name == "MESSAGE_TOO_LARGE"
    assert fault.metadata["limit_bytes"] == "1000"


class Waiting(Echo):
    """Answers once, then waits until it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting, self.ended = asyncio.Event(), asyncio.Event()

    async def _us(self, request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        try:
            yield request
            self.waiting.set()
            await asyncio.Event().wait()
        finally:
            self.ended.set()


async def test_a_cancelled_stream_unwinds_and_is_logged_as_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    echo = Waiting()
    caplog.set_level(logging.INFO)
    async with echoing(echo) as channel:
        call = invoke(channel, "UnaryStream", message())
        await anext(aiter(call))
        await echo.waiting.wait()
        call.cancel()
        await asyncio.wait_for(echo.ended.wait(), 20)
    lines = [record.fields for record in caplog.records if record.getMessage() == "rpc"]  # type: ignore[attr-defined]
    assert [line["code"] for line in lines] == ["CANCELLED"]


async def test_a_deadline_ends_the_work() -> None:
    echo = Waiting()
    async with echoing(echo) as channel:
        fault = await refused(channel, "UnaryStream", message(), timeout=1.0)
        await asyncio.wait_for(echo.ended.wait(), 20)
    assert isinstance(fault, errors.Unavailable) and "in time" in fault.message


async def test_span_figures_and_log_line_of_a_call(tmp_path: Path) -> None:
    log_file = tmp_path / "log.jsonl"
    running = telemetry.configure("echo", trace_folder=tmp_path / "traces", log_file=log_file)
    try:
        async with echoing(Echo()) as channel:
            with telemetry.span("client", kind=SpanKind.CLIENT) as client:
                await answers(channel, "StreamUnary", message("row content"))
                await refused(channel, "UnaryUnary", message(""))
        figures = telemetry.render_metrics()
    finally:
        running.shutdown()
    spans = {found["name"]: found for found in read_traces(tmp_path / "traces")}
    span = spans["sluice.echo.v1.EchoService/StreamUnary"]
    assert span["trace_id"] == f"{client.get_span_context().trace_id:032x}"
    assert span["parent_id"] == spans["client"]["span_id"]
    assert span["attributes"] == {
        "rpc.system": "grpc", "rpc.service": "sluice.echo.v1.EchoService", "rpc.method": "StreamUnary",
        "rpc.grpc.status_code": 0,
    }  # fmt: skip
    method = 'method="/sluice.echo.v1.EchoService/UnaryUnary"'
    assert f'sluice_rpc_total{{{method},code="INVALID_ARGUMENT"}} 1' in figures
    lines = [json.loads(line) for line in log_file.read_text().splitlines()]
    first = next(line for line in lines if line["event"] == "rpc")
    assert (first["code"], first["principal"], first["trace_id"]) == (
        "OK",
        "projects/p/apiKeys/k",
        span["trace_id"],
    )
    assert "row content" not in log_file.read_text() + (tmp_path / "traces" / "echo.jsonl").read_text()


def test_naming_a_second_project_needs_a_reader_there() -> None:
    from kit.rpc.interceptors.auth import Auth
    from sluice.registry import v1 as registry

    asked: list[tuple[bool, str]] = []
    auth = Auth(allow_all, lambda _principal, access, project: asked.append((access.reader, project)))
    request = registry.CreateApiKeyRequest(parent="projects/p")
    request.api_key.role_bindings.add(project="projects/q", role=types.ROLE_AUDITOR)
    auth._check("/sluice.registry.v1.ApiKeyService/CreateApiKey", allow_all(None), request, True)
    assert asked == [(False, "projects/p"), (True, "projects/q")]
