"""The data-path worker over real sockets: official clients, failing engines, leaving clients, swaps."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest

from kit import telemetry
from kit.telemetry.trace_files import read_traces
from services.gateway.worker.app import Limits, Worker
from services.gateway.worker.exchange import Timeouts
from services.gateway.worker.policy import EVALUATOR
from services.gateway.worker.serve import serving
from services.gateway.worker.served import ServedLog
from services.gateway.worker.snapshot import (
    Arm,
    Candidate,
    KeyTable,
    Principal,
    Route,
    RouteTable,
    Upstream,
    digest,
)

PROJECT = "projects/default"
ENDPOINT = f"{PROJECT}/endpoints/assistant"
PROMPT = [{"role": "user", "content": "a very private question"}]
Spans = Callable[[], list[dict[str, Any]]]
Behavior = Callable[["Ask", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Ask:
    """One request as an engine saw it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


def answer(writer: asyncio.StreamWriter, body: object, status: str = "200 OK", more: str = "") -> None:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{more}content-length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)


def begin_stream(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")


def event(writer: asyncio.StreamWriter, payload: str) -> None:
    data = f"data: {payload}\n\n".encode()
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def token(model: str, text: str) -> str:
    delta = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [delta]}
    return json.dumps(chunk, separators=(",", ":"))


async def normal(ask: Ask, writer: asyncio.StreamWriter) -> None:
    model = ask.body["model"]
    if not ask.body.get("stream"):
        message = {"role": "assistant", "content": f"by {model}"}
        choice = {"index": 0, "message": message, "text": f"by {model}", "finish_reason": "stop"}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        answer(writer, {"id": "c", "created": 1, "model": model, "choices": [choice], "usage": usage})
        return
    begin_stream(writer)
    for text in ("by ", model):
        event(writer, token(model, text))
        await writer.drain()
    event(writer, "[DONE]")
    writer.write(b"0\r\n\r\n")


class Engine:
    """A scripted OpenAI engine on a free port; `hung_up` is set when a client leaves while being answered."""

    def __init__(self) -> None:
        self.behavior: Behavior = normal
        self.asks: list[Ask] = []
        self.connections = 0
        self.hung_up = asyncio.Event()
        self.asked = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Die: no farewell to anybody, and nobody listens any more."""
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def upstream(self, model: str) -> Upstream:
        return Upstream(self.url, "sk-engine-secret", model)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        self._tasks.add(task := asyncio.current_task())  # type: ignore[arg-type]
        try:
            while True:
                ask = await self._read(reader)
                self.asks.append(ask)
                self.asked.set()
                answering = asyncio.ensure_future(self.behavior(ask, writer))
                leaving = asyncio.ensure_future(reader.read(1))
                await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
                if not answering.done():
                    self.hung_up.set()
                    answering.cancel()
                    return
                leaving.cancel()
                await asyncio.gather(leaving, return_exceptions=True)
                if writer.transport.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)  # type: ignore[arg-type]
            self._writers.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Ask:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        body = await reader.readexactly(int(headers["content-length"]))
        return Ask(first.split()[1], headers, json.loads(body))


@dataclass
class Gateway:
    """A running worker with two engines; version 2 is stable on `one`, version 3 the candidate on `two`."""

    worker: Worker
    url: str
    one: Engine
    two: Engine
    record: Path
    revision: int = 1
    clients: list[openai.AsyncOpenAI] = field(default_factory=list)

    def route(self, candidate_percent: int, *, stable: bool = True) -> None:
        self.revision += 1
        arms = [Arm(name(3), "candidate", candidate_percent, self.two.upstream("m-3"))]
        if stable:
            arms.append(Arm(name(2), "stable", 100 - candidate_percent, self.one.upstream("m-2")))
        route = Route(ENDPOINT, "assistant", PROJECT, "chat", tuple(arms), "salt")
        judged = Candidate(f"{PROJECT}/candidateRoutes/c", "candidate-c", name(3), self.two.upstream("m-3"), EVALUATOR)
        self.worker.swap_routes(RouteTable(self.revision, {ENDPOINT: route}, {judged.slug: judged}))

    def client(self, key: str = "sk-user") -> openai.AsyncOpenAI:
        client = openai.AsyncOpenAI(api_key=key, base_url=f"{self.url}/v1", max_retries=0, timeout=20)
        self.clients.append(client)
        return client

    async def served(self) -> list[dict[str, Any]]:
        await self.worker.served.flush()
        return [json.loads(line) for line in self.record.read_text().splitlines()]


def name(number: int) -> str:
    return f"{PROJECT}/models/m/versions/{number}"


KEYS = KeyTable(
    1,
    {
        digest("sk-user"): Principal(f"{PROJECT}/apiKeys/u", {PROJECT: frozenset({"inference"})}),
        digest("sk-ops"): Principal(f"{PROJECT}/apiKeys/o", {PROJECT: frozenset({"operations"})}),
        digest("sk-auditor"): Principal(f"{PROJECT}/apiKeys/a", {PROJECT: frozenset({"auditor"})}),
        digest("sk-other"): Principal("projects/other/apiKeys/x", {"projects/other": frozenset({"admin"})}),
    },
)
TOKENS = {"head.payload.sign": Principal(EVALUATOR, {})}
QUICK = Timeouts(connect_s=0.5, first_byte_s=0.3, idle_s=0.3, total_s=0.4, request_body_s=0.3)


@contextlib.asynccontextmanager
async def running(
    folder: Path, timeouts: Timeouts | None = None, withdrawn_ends_s: float = 30, trace_ratio: float = 0.0
) -> AsyncIterator[Gateway]:
    record = folder / "served.jsonl"
    limits = Limits(request_bytes=10_000, answer_bytes=100_000)
    worker = Worker(
        ServedLog(record),
        timeouts=timeouts,
        limits=limits,
        verify_token=TOKENS.get,
        trace_ratio=trace_ratio,
        withdrawn_ends_s=withdrawn_ends_s,
    )
    one, two = Engine(), Engine()
    await one.start()
    await two.start()
    async with serving(worker, "127.0.0.1") as port:
        gateway = Gateway(worker, f"http://127.0.0.1:{port}", one, two, record)
        worker.swap_keys(KEYS)
        gateway.route(0)
        yield gateway
        for client in gateway.clients:
            await client.close()
        await one.stop()
        await two.stop()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path) as started:
        yield started


@pytest.fixture
async def quick(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path, QUICK) as started:
        yield started


async def post(
    gateway: Gateway, body: bytes, *, key: str | None = "sk-user", more: str = ""
) -> tuple[int, dict[str, str], Any]:
    """A raw POST to chat completions: status, headers, JSON body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    auth = f"authorization: Bearer {key}\r\n" if key else ""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{auth}{more}content-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    status, headers = await read_head(reader)
    data = await reader.readexactly(int(headers["content-length"]))
    writer.close()
    return status, headers, json.loads(data)


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines)


def ask_body(stream: bool = False, **more: object) -> bytes:
    return json.dumps({"model": "assistant", "messages": PROMPT, "stream": stream, **more}).encode()


async def test_the_official_client_chats(gateway: Gateway) -> None:
    client = gateway.client()
    assert [model.id async for model in client.models.list()] == ["assistant"]
    assert (await client.models.retrieve("assistant")).id == "assistant"
    raw = await client.chat.completions.with_raw_response.create(model="assistant", messages=PROMPT)
    chat = raw.parse()
    assert (chat.model, chat.choices[0].message.content) == ("assistant", "by m-2")
    assert chat.usage is not None
    assert raw.headers["x-sluice-version"] == name(2)
    assert raw.headers["x-sluice-endpoint"] == ENDPOINT
    assert raw.headers["x-request-id"].startswith("req-")
    text = await client.completions.create(model="assistant", prompt="hello")
    assert text.choices[0].text == "by m-2"
    (ask, other) = gateway.one.asks
    assert (ask.path, other.path) == ("/v1/chat/completions", "/v1/completions")
    assert ask.body == {"model": "m-2", "messages": PROMPT}
    assert ask.headers["authorization"] == "Bearer sk-engine-secret"


async def test_the_official_client_streams(gateway: Gateway) -> None:
    stream = await gateway.client().chat.completions.create(model="assistant", messages=PROMPT, stream=True)
    chunks = [chunk async for chunk in stream]
    assert {chunk.model for chunk in chunks} == {"assistant"}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "by m-2"
    assert stream.response.headers["x-sluice-version"] == name(2)
    *_, line = await gateway.served()
    assert line["ttft_ms"] > 0


async def test_connections_to_an_engine_are_kept_and_a_dead_one_is_replaced(gateway: Gateway) -> None:
    for _ in range(5):
        assert (await post(gateway, ask_body()))[0] == 200
    assert gateway.one.connections == 1

    async def once(ask: Ask, writer: asyncio.StreamWriter) -> None:
        gateway.one.behavior = normal
        writer.transport.abort()

    gateway.one.behavior = once
    assert (await post(gateway, ask_body()))[0] == 200
    assert (gateway.one.connections, len(gateway.one.asks)) == (2, 7)


async def test_a_trace_is_continued_and_ids_are_kept(gateway: Gateway) -> None:
    more = f"traceparent: 00-{'a' * 32}-{'b' * 16}-01\r\nx-request-id: job-7\r\n"
    _, headers, _ = await post(gateway, ask_body(), more=more)
    assert headers["traceresponse"].startswith(f"00-{'a' * 32}-")
    assert headers["x-request-id"] == "job-7"
    assert gateway.one.asks[0].headers["traceparent"] == headers["traceresponse"]
    *_, line = await gateway.served()
    assert (line["trace_id"], line["request_id"]) == ("a" * 32, "job-7")


@pytest.fixture
def spans(tmp_path: Path) -> Iterator[Spans]:
    """The spans of the worker so far."""
    running = telemetry.configure("gateway-worker", trace_folder=tmp_path / "traces", log_file=tmp_path / "log.jsonl")

    def kept() -> list[dict[str, Any]]:
        running.flush()
        return list(read_traces(tmp_path / "traces"))

    yield kept
    running.shutdown()


async def test_a_request_of_a_kept_trace_is_one_span_without_content(gateway: Gateway, spans: Spans) -> None:
    more = f"traceparent: 00-{'a' * 32}-{'b' * 16}-0%d\r\n"
    _, headers, _ = await post(gateway, ask_body(), more=more % 1)
    await post(gateway, ask_body(), more=more % 0)
    await post(gateway, ask_body())  # nobody asked for a trace, and no share is kept
    (span,) = spans()
    assert (span["trace_id"], span["parent_id"]) == ("a" * 32, "b" * 16)
    assert headers["traceresponse"] == f"00-{'a' * 32}-{span['span_id']}-01"
    assert (span["name"], span["status"]) == ("POST /v1/chat/completions", "UNSET")
    attributes = span["attributes"]
    took_ms = attributes.pop("duration_ms")
    assert attributes == {"endpoint": ENDPOINT, "model_version": name(2), "http.response.status_code": 200}
    assert 0 < took_ms <= (span["end_unix_ns"] - span["start_unix_ns"]) / 1e6


async def test_a_share_of_the_other_requests_begins_a_trace(tmp_path: Path, spans: Spans) -> None:
    async with running(tmp_path, trace_ratio=1.0) as gateway:
        stream = await gateway.client().chat.completions.create(model="assistant", messages=PROMPT, stream=True)
        assert [chunk async for chunk in stream]
        _, trace_id, span_id, flags = stream.response.headers["traceresponse"].split("-")
        assert gateway.one.asks[0].headers["traceparent"].split("-")[1] == trace_id
    (span,) = spans()
    assert (span["trace_id"], span["span_id"], span["parent_id"]) == (trace_id, span_id, "") and int(flags, 16) & 1
    assert 0 < span["attributes"]["ttft_ms"] <= span["attributes"]["duration_ms"]
    assert "private" not in (tmp_path / "traces" / "gateway-worker.jsonl").read_text()


async def test_spans_say_how_a_request_failed(tmp_path: Path, spans: Spans) -> None:
    async def refuses(ask: Ask, writer: asyncio.StreamWriter) -> None:
        answer(writer, {"error": {"message": "too long"}}, "400 Bad Request")

    async with running(tmp_path, trace_ratio=1.0) as gateway:
        status, headers, _ = await post(gateway, ask_body(), key="sk-nobody")
        assert status == 401 and int(headers["traceresponse"][-2:], 16) & 1
        gateway.one.behavior = refuses
        assert (await post(gateway, ask_body()))[0] == 400
        await gateway.one.stop()
        assert (await post(gateway, ask_body()))[0] == 502
    found = [
        (each["attributes"]["http.response.status_code"], each["attributes"]["error.type"], each["status"])
        for each in spans()
    ]
    assert found == [(401, "unauthenticated", "UNSET"), (400, "refused", "UNSET"), (502, "unreachable", "ERROR")]


async def test_sessions_stick_and_the_record_says_who_served(gateway: Gateway) -> None:
    gateway.route(30)
    answers: dict[str, set[str]] = {}
    for turn in range(120):
        session = f"s{turn % 40}"
        _, headers, body = await post(gateway, ask_body(), more=f"x-sluice-session: {session}\r\n")
        answers.setdefault(session, set()).add(headers["x-sluice-version"])
        assert body["choices"][0]["message"]["content"] == f"by m-{headers['x-sluice-version'][-1]}"
    assert all(len(versions) == 1 for versions in answers.values())
    assert {next(iter(versions)) for versions in answers.values()} == {name(2), name(3)}
    lines = await gateway.served()
    assert [line["revision"] for line in lines if line["kind"] == "table"] == [2, 3]
    counted = Counter(line["version"] for line in lines if line["kind"] == "request")
    drained = {each.version: each.requests for each in gateway.worker.figures.drain()}
    assert drained == dict(counted)
    assert sum(counted.values()) == 120


@pytest.mark.parametrize(
    ("body", "key", "status", "code"),
    [
        (ask_body(), None, 401, "invalid_api_key"),
        (ask_body(), "sk-wrong", 401, "invalid_api_key"),
        (ask_body(), "a.b.c", 401, "invalid_api_key"),
        (ask_body(), "sk-auditor", 403, "permission_denied"),
        (ask_body(), "sk-other", 404, "model_not_found"),
        (ask_body(model="assistant:candidate"), "sk-user", 403, "permission_denied"),
        (ask_body(model="candidate-c"), "sk-user", 404, "model_not_found"),
        (ask_body(model="nothing"), "sk-user", 404, "model_not_found"),
        (b"{", "sk-user", 400, "invalid_request"),
        (b"{}", "sk-user", 400, "invalid_request"),
        (ask_body(user="x" * 10_000), "sk-user", 413, "request_too_large"),
    ],
)
async def test_refusals_are_openai_errors(
    gateway: Gateway, body: bytes, key: str | None, status: int, code: str
) -> None:
    got, headers, answered = await post(gateway, body, key=key)
    assert (got, answered["error"]["code"]) == (status, code)
    assert set(answered["error"]) == {"message", "type", "param", "code"}
    assert headers["x-request-id"]
    assert gateway.one.asks == gateway.two.asks == []


async def test_the_official_client_knows_the_errors(gateway: Gateway) -> None:
    with pytest.raises(openai.AuthenticationError):
        await gateway.client("sk-wrong").models.list()
    with pytest.raises(openai.NotFoundError, match="nothing"):
        await gateway.client().chat.completions.create(model="nothing", messages=PROMPT)
    with pytest.raises(openai.NotFoundError):
        await gateway.client().embeddings.create(model="assistant", input="x")


async def test_the_evaluator_reaches_a_candidate_and_users_do_not(gateway: Gateway) -> None:
    evaluator = gateway.client("head.payload.sign")
    for model in ("candidate-c", "assistant:candidate"):
        chat = await evaluator.chat.completions.create(model=model, messages=PROMPT)
        assert (chat.model, chat.choices[0].message.content) == (model, "by m-3")
    assert {each.endpoint for each in gateway.worker.figures.drain()} == {
        f"{PROJECT}/candidateRoutes/c",
        f"{ENDPOINT}:candidate",
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_stops_the_engine(gateway: Gateway, stream: bool) -> None:
    async def endless(ask: Ask, writer: asyncio.StreamWriter) -> None:
        if stream:
            begin_stream(writer)
            event(writer, token("m-2", "x"))
        await asyncio.Event().wait()

    gateway.one.behavior = endless
    _, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    body = ask_body(stream)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-user\r\n")
    writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
    await gateway.one.asked.wait()
    writer.transport.abort()
    async with asyncio.timeout(0.5):
        await gateway.one.hung_up.wait()
    async with asyncio.timeout(5):
        while [line["kind"] for line in await gateway.served()][-1] != "request":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert gateway.worker.figures.in_flight(ENDPOINT, name(2)) == 0
    *_, line = await gateway.served()
    assert (line["status"], line["error"]) == (499, "client_gone")


async def dying(ask: Ask, writer: asyncio.StreamWriter) -> None:
    begin_stream(writer)
    event(writer, token("m-2", "first"))
    half = b'data: {"never":'
    writer.write(b"%x\r\n%b\r\n" % (len(half), half))
    await writer.drain()
    writer.close()


async def ending_early(ask: Ask, writer: asyncio.StreamWriter) -> None:
    begin_stream(writer)
    event(writer, token("m-2", "first"))
    writer.write(b"0\r\n\r\n")


async def confessing(ask: Ask, writer: asyncio.StreamWriter) -> None:
    begin_stream(writer)
    event(writer, token("m-2", "first"))
    await writer.drain()
    await asyncio.sleep(0.01)  # so that the worker has relayed the first event
    event(writer, '{"error": {"message": "CUDA error at 10.0.0.7"}}')
    event(writer, "[DONE]")
    writer.write(b"0\r\n\r\n")


async def stalling(ask: Ask, writer: asyncio.StreamWriter) -> None:
    begin_stream(writer)
    event(writer, token("m-2", "first"))
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("behavior", "code"),
    [
        (dying, "engine_broken"),
        (ending_early, "engine_broken"),
        (confessing, "engine_broken"),
        (stalling, "engine_timeout"),
    ],
)
async def test_a_stream_that_breaks_ends_with_an_error_and_no_done(
    quick: Gateway, behavior: Behavior, code: str
) -> None:
    quick.one.behavior = behavior
    reader, writer = await asyncio.open_connection("127.0.0.1", int(quick.url.rpartition(":")[2]))
    body = ask_body(True)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-user\r\n")
    writer.write(b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    status, _ = await read_head(reader)
    text = (await reader.read()).decode()
    writer.close()
    assert status == 200
    assert '"content":"first"' in text
    error = json.loads(text.split('data: {"error"')[1].join(('{"error"', "")).split("\n\n")[0])
    assert error["error"]["code"] == code
    assert text.endswith("\r\n0\r\n\r\n")
    assert "[DONE]" not in text
    assert "never" not in text
    assert "10.0.0.7" not in text
    assert len(quick.one.asks) == 1
    *_, line = await quick.served()
    assert line["error"] in ("broken", "timeout")


async def test_the_official_client_sees_a_broken_stream(gateway: Gateway) -> None:
    gateway.one.behavior = dying
    stream = await gateway.client().chat.completions.create(model="assistant", messages=PROMPT, stream=True)
    with pytest.raises(openai.APIError, match="before its answer was complete"):
        [chunk async for chunk in stream]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hanging_engine_times_out_and_is_ejected(quick: Gateway, stream: bool) -> None:
    async def hang(ask: Ask, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    quick.one.behavior = hang
    for _ in range(3):
        status, headers, body = await post(quick, ask_body(stream))
        assert (status, body["error"]["code"]) == (504, "engine_timeout")
        assert headers["x-sluice-version"] == name(2)
    status, headers, body = await post(quick, ask_body(stream))
    assert (status, headers["retry-after"], len(quick.one.asks)) == (503, "2", 3)
    assert quick.worker.figures.drain()[0].errors == {"timeout": 3, "unreachable": 1}


async def test_a_slow_body_is_not_waited_for(quick: Gateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(quick.url.rpartition(":")[2]))
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-user\r\n")
    writer.write(b"content-length: 100\r\n\r\n{")
    status, headers = await read_head(reader)
    assert (status, headers["connection"]) == (408, "close")
    writer.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unreachable_candidate_is_counted_and_stable_serves(gateway: Gateway, stream: bool) -> None:
    await gateway.two.stop()
    gateway.route(99)
    client = gateway.client()
    raw = await client.chat.completions.with_raw_response.create(model="assistant", messages=PROMPT, stream=stream)
    assert raw.headers["x-sluice-version"] == name(2)
    if stream:
        [chunk async for chunk in raw.parse()]
    *_, line = await gateway.served()
    assert (line["version"], line["instead_of"], line["status"]) == (name(2), name(3), 200)
    drained = {each.version: each for each in gateway.worker.figures.drain()}
    assert drained[name(3)].errors == {"unreachable": 1}
    assert (drained[name(2)].requests, drained[name(2)].errors) == (1, {})
    assert gateway.worker.figures.in_flight(ENDPOINT, name(3)) == 0


async def test_without_a_stable_arm_an_unreachable_engine_is_a_502(gateway: Gateway) -> None:
    await gateway.two.stop()
    gateway.route(100, stable=False)
    status, headers, body = await post(gateway, ask_body())
    assert (status, body["error"]["code"]) == (502, "engine_unreachable")
    assert headers["x-sluice-version"] == name(3)
    assert "127.0.0.1" not in json.dumps(body)


@pytest.mark.parametrize(
    ("status", "message", "seen"),
    [
        ("400 Bad Request", "max_tokens must be positive", 400),
        ("400 Bad Request", "cannot parse 'a very private question'", 400),
        ("500 Internal Server Error", "CUDA", 502),
        ("401 Unauthorized", "bad key sk-engine-secret", 502),
        ("429 Too Many Requests", "queue", 429),
    ],
)
async def test_an_engines_errors_are_told_without_secrets(
    gateway: Gateway, status: str, message: str, seen: int
) -> None:
    async def refuse(ask: Ask, writer: asyncio.StreamWriter) -> None:
        answer(writer, {"error": {"message": message}}, status, "retry-after: 9\r\n")

    gateway.one.behavior = refuse
    got, headers, body = await post(gateway, ask_body())
    text = json.dumps(body)
    assert got == seen
    assert ("max_tokens" in text) is ("max_tokens" in message)
    assert not any(secret in text for secret in ("private", "sk-engine", "127.0.0.1", "m-2"))
    assert headers.get("retry-after") == ("9" if seen == 429 else None)


@pytest.mark.parametrize("payload", ["not json", [1]])
async def test_an_answer_that_is_no_openai_object_is_a_502(gateway: Gateway, payload: object) -> None:
    async def odd(ask: Ask, writer: asyncio.StreamWriter) -> None:
        answer(writer, payload)

    gateway.one.behavior = odd
    assert (await post(gateway, ask_body()))[0] == 502


async def test_an_answer_over_the_limit_is_a_502(gateway: Gateway) -> None:
    async def huge(ask: Ask, writer: asyncio.StreamWriter) -> None:
        answer(writer, {"x": "y" * 2_000_000})

    gateway.one.behavior = huge
    assert (await post(gateway, ask_body()))[0] == 502


async def test_after_a_swap_returned_a_removed_version_serves_nobody(gateway: Gateway) -> None:
    gateway.route(50)
    answered = 0
    some, many = asyncio.Event(), asyncio.Event()

    async def load(worker: int) -> None:
        nonlocal answered
        for turn in range(60):
            more = f"x-sluice-session: {worker}-{turn}\r\n"
            assert (await post(gateway, ask_body(), more=more))[0] == 200
            answered += 1
            if answered == 150:
                some.set()
            elif answered == 400:
                many.set()

    async def swap() -> None:
        await some.wait()
        gateway.route(0)
        asked = len(gateway.two.asks)
        await many.wait()
        assert len(gateway.two.asks) <= asked + 8  # sent before the swap, not yet read by the engine

    await asyncio.gather(swap(), *(load(worker) for worker in range(8)))
    lines = await gateway.served()
    last = max(line["revision"] for line in lines)
    assert {line["version"] for line in lines if line["kind"] == "request" and line["revision"] == last} == {name(2)}
    assert any(line.get("version") == name(3) for line in lines)


async def test_a_head_without_end_is_cut_off(gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    writer.write(b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 400_000)
    status, _ = await read_head(reader)
    assert status == 400
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()


@pytest.mark.parametrize(
    "head",
    [
        "content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\nhello",
        "transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
        "x: a\r\n b: c\r\ncontent-length : 5\r\n\r\nhello",
    ],
)
async def test_requests_framed_two_ways_never_reach_an_engine(gateway: Gateway, head: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    first = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-user\r\n"
    writer.write((first + head).encode())
    assert (await read_head(reader))[0] == 400
    writer.close()
    assert gateway.one.asks == []


@contextlib.asynccontextmanager
async def endless(gateway: Gateway, stream: bool) -> AsyncIterator[asyncio.StreamReader]:
    """A request to the stable version under way; it would never end."""

    async def behavior(ask: Ask, writer: asyncio.StreamWriter) -> None:
        if stream:
            begin_stream(writer)
            event(writer, token("m-2", "x"))
        await asyncio.Event().wait()

    gateway.one.behavior = behavior
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    body = ask_body(stream)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-user\r\n")
    writer.write(b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await gateway.one.asked.wait()
    if stream:
        await read_head(reader)
    yield reader
    writer.close()
    gateway.one.behavior = normal


async def assert_cut(gateway: Gateway, text: str) -> None:
    assert "version_withdrawn" in text
    assert "[DONE]" not in text
    await gateway.one.hung_up.wait()
    *_, line = await gateway.served()
    assert (line["error"], line["status"]) == ("withdrawn", 503)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_of_a_withdrawn_version_is_cut_in_the_end(tmp_path: Path, stream: bool) -> None:
    async with running(tmp_path, withdrawn_ends_s=0.05) as gateway:
        async with endless(gateway, stream) as reader:
            gateway.route(0)  # still there: it may go on
            gateway.route(100, stable=False)
            text = (await reader.read()).decode()
        await assert_cut(gateway, text)
        assert (await post(gateway, ask_body()))[1]["x-sluice-version"] == name(3)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_revoked_version_is_cut_at_once_and_no_table_brings_it_back(gateway: Gateway, stream: bool) -> None:
    gateway.route(50)
    gateway.route(0)
    async with endless(gateway, stream) as reader:
        gateway.worker.revoke(name(2))
        text = (await reader.read()).decode()
    await assert_cut(gateway, text)
    gateway.route(10)  # as a control process would say that has not heard of it
    before = len(gateway.one.asks)
    status, _, refused = await post(gateway, ask_body())
    assert status == 503, refused  # nobody is promoted by it
    assert (await post(gateway, ask_body(model="assistant@2")))[0] == 404
    assert len(gateway.one.asks) == before


async def test_the_share_of_a_revoked_candidate_is_the_stable_versions(gateway: Gateway) -> None:
    async def silent(ask: Ask, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    gateway.two.behavior = silent
    gateway.route(100)
    waiting = asyncio.create_task(post(gateway, ask_body()))
    await gateway.two.asked.wait()
    gateway.worker.revoke(name(3))
    assert (await waiting)[1]["x-sluice-version"] == name(2)  # nothing had been sent to the client
    for _ in range(5):
        assert (await post(gateway, ask_body()))[1]["x-sluice-version"] == name(2)
    record = await gateway.served()
    assert [line.get("instead_of") for line in record if line["kind"] == "request"] == [name(3), *5 * [None]]


async def test_an_older_table_is_ignored(gateway: Gateway) -> None:
    gateway.revision = -1
    gateway.route(100)
    assert gateway.worker.revision == 2
    assert (await post(gateway, ask_body()))[1]["x-sluice-version"] == name(2)


async def test_health_and_metrics(tmp_path: Path) -> None:
    worker = Worker(ServedLog(tmp_path / "served.jsonl"))
    async with serving(worker, "127.0.0.1") as port:

        async def get(path: str, key: str = "", method: str = "GET") -> tuple[int, bytes]:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            auth = f"authorization: Bearer {key}\r\n" if key else ""
            writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\n{auth}\r\n".encode())
            status, headers = await read_head(reader)
            body = b"" if method == "HEAD" else await reader.readexactly(int(headers["content-length"]))
            writer.close()
            return status, body

        assert (await get("/healthz"))[0] == 503
        worker.swap_keys(KEYS)
        assert (await get("/v1/models", "sk-user"))[0] == 503
        worker.swap_routes(RouteTable(1, {}, {}))
        assert (await get("/healthz"))[0] == (await get("/healthz", method="HEAD"))[0] == 200
        assert (await get("/v1/models", "sk-user"))[0] == 200
        assert (await get("/v1/chat/completions", "sk-user"))[0] == 405
        assert (await get("/nowhere"))[0] == 404
        assert (await get("/metrics"))[0] == 401
        assert (await get("/metrics", "sk-user"))[0] == 403
        status, text = await get("/metrics", "sk-ops")
        assert status == 200
        assert b"# TYPE sluice_gateway_requests_total counter" in text


async def test_nobody_holds_a_connection_without_a_request(tmp_path: Path) -> None:
    worker = Worker(ServedLog(tmp_path / "served.jsonl"))
    async with serving(worker, "127.0.0.1", head_s=0.2) as port:
        ends = []
        whole = b"GET /nope HTTP/1.1\r\nhost: x\r\n\r\n"
        for sent in (b"", whole[:20], whole + whole[:20]):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            ends.append(asyncio.wait_for(reader.read(), 5))
        answers = await asyncio.gather(*ends)
    assert [answer[:12] for answer in answers] == [b"", b"", b"HTTP/1.1 404"]


async def test_a_trailer_does_not_say_who_asks(gateway: Gateway) -> None:
    body = ask_body()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-nobody\r\n")
    writer.write(b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(body), body))
    writer.write(b"authorization: Bearer sk-user\r\n\r\n")
    assert (await read_head(reader))[0] == 401
    writer.close()
