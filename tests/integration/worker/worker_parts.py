"""A worker over real sockets between scripted engines: what its tests drive; it asserts nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai

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
CHAT = "/v1/chat/completions"
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


async def endless(ask: Ask, writer: asyncio.StreamWriter) -> None:
    """Begins, where a stream is wanted, and never ends."""
    if ask.body.get("stream"):
        begin_stream(writer)
        event(writer, token(ask.body["model"], "x"))
    await asyncio.Event().wait()


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
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
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
            self._tasks.discard(task)
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

    def route(self, candidate_percent: int, *, stable: bool = True, interface: str = "chat") -> None:
        self.revision += 1
        arms = [Arm(name(3), "candidate", candidate_percent, self.two.upstream("m-3"))]
        if stable:
            arms.append(Arm(name(2), "stable", 100 - candidate_percent, self.one.upstream("m-2")))
        route = Route(ENDPOINT, "assistant", PROJECT, interface, tuple(arms), "salt")
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
TOKENS = {
    "head.payload.sign": Principal(EVALUATOR, {}),
    "trainer.payload.sign": Principal("services/trainer", {}),
}
QUICK = Timeouts(connect_s=1.0, first_byte_s=0.6, idle_s=0.6, total_s=0.8, request_body_s=0.6)


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


async def post(
    gateway: Gateway, body: bytes, *, key: str | None = "sk-user", more: str = "", path: str = CHAT
) -> tuple[int, dict[str, str], Any]:
    """A raw POST: status, headers, JSON body."""
    reader, writer = await send(gateway, body, key=key, more=more, path=path)
    status, headers = await read_head(reader)
    data = await reader.readexactly(int(headers["content-length"]))
    writer.close()
    return status, headers, json.loads(data)


async def send(
    gateway: Gateway, body: bytes, *, key: str | None = "sk-user", more: str = "", path: str = CHAT
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The same under way: nothing is read of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    auth = f"authorization: Bearer {key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{auth}{more}content-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    return reader, writer


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines)


def ask_body(stream: bool = False, **more: object) -> bytes:
    return json.dumps({"model": "assistant", "messages": PROMPT, "stream": stream, **more}).encode()
