"""One client request from admission to its last byte: engine, fallback, relay, figures; knows nothing of
paths or keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from services.gateway.worker.answers import Headers, Receive, Send
from services.gateway.worker.body import Request, Usage, refusal, rewrite_answer
from services.gateway.worker.errors import (
    Broken,
    ClientGone,
    EngineFault,
    GatewayError,
    Refused,
    TooLong,
    Unreachable,
    Withdrawn,
)
from services.gateway.worker.exchange import Exchange
from services.gateway.worker.figures import Figures
from services.gateway.worker.paths import Way
from services.gateway.worker.patience import Patience
from services.gateway.worker.policy import Target, stable_instead
from services.gateway.worker.served import Served
from services.gateway.worker.snapshot import RouteTable, Upstream
from services.gateway.worker.sse import EventRelay
from services.gateway.worker.trace import Trace
from services.gateway.worker.upstream import EnginePool


class Surroundings(NamedTuple):
    """What a call needs of its worker."""

    table: Callable[[], RouteTable | None]
    pool: Callable[[Upstream], EnginePool]
    figures: Figures
    record: Callable[[Served, Trace], None]
    now: Callable[[], float]
    loop: asyncio.AbstractEventLoop
    patience: Patience
    max_answer_bytes: int
    calls: set[Call]


class Call:
    """Send one admitted request to its target and relay the answer; `run` counts and records it whatever
    happens.
    """

    def __init__(
        self,
        around: Surroundings,
        way: Way,
        target: Target,
        request: Request,
        exchange: Exchange,
        trace: Trace,
        request_id: bytes,
    ) -> None:
        self.target = target
        self._around = around
        self._way = way
        self._request = request
        self._exchange = exchange
        self._trace = trace
        self._request_id = request_id
        self._loop = around.loop
        self._began = self._loop.time()
        self._began_at = around.now()
        self._instead_of: str | None = None
        self._usage: Usage | None = None
        self._answering = False
        self._over = False
        self._watcher: asyncio.Task[None] | None = None
        self._receive: Receive

    def headers(self) -> Headers:
        """The headers that say who answered."""
        return [
            (b"x-sluice-version", self.target.version.encode()),
            (b"x-sluice-endpoint", self.target.endpoint.encode()),
            (b"x-request-id", self._request_id),
            (b"traceresponse", self._trace.header),
        ]

    async def run(self, receive: Receive, send: Send) -> None:
        """Relay everything. Raises EngineFault only while nothing was sent to the client."""
        self._around.figures.began(self.target.endpoint, self.target.version)
        self._around.calls.add(self)
        self._receive = receive
        self._around.patience.add(self._slow)
        error: GatewayError | None = None
        status = 200
        try:
            await self._reach()
            if self._exchange.status != 200:
                raise await self._refusal()
            if self._exchange.content_type.startswith(b"text/event-stream"):
                await self._relay_events(send)
            else:
                await self._relay_answer(send)
        except EngineFault as fault:
            error, status = fault, fault.status
            if not self._answering:
                raise
            await self._end_with(fault, send)
        except BaseException:
            error, status = Broken("The gateway failed."), 500
            raise
        finally:
            self._exchange.abort()
            self._around.calls.discard(self)
            self._over = True
            if self._watcher is not None:
                self._watcher.cancel()
            self._count(error, status)

    def withdraw(self) -> None:
        """Cut the answer: its version may not serve any more. The client is told so, or gets one of the stable
        version where nothing was sent to it yet.
        """
        self._exchange.abort(Withdrawn("This version was withdrawn while it answered; send the request again."))

    def _slow(self) -> None:
        if not self._over:
            self._exchange.slow()
            self._watcher = self._loop.create_task(self._watch())

    async def _watch(self) -> None:
        # The body is read, so the next message can only be the disconnect.
        await self._receive()
        self._exchange.abort()

    async def _reach(self) -> None:
        try:
            await self._post()
        except (Unreachable, Withdrawn) as fault:
            table = self._around.table()
            instead = stable_instead(self.target, table) if table is not None else None
            if instead is None:
                raise
            self._begin_again()
            self._count(fault, fault.status, record=False)
            self._instead_of, self.target = self.target.version, instead
            self._around.figures.began(instead.endpoint, instead.version)
            await self._post()

    def _begin_again(self) -> None:
        """Nothing was sent to the client yet, so another engine may answer."""
        self._exchange = Exchange(self._exchange.timeouts, self._loop, streaming=self._request.stream)
        if self._watcher is not None:
            self._exchange.slow()

    async def _post(self) -> None:
        engine = self.target.engine
        headers = b"traceparent: %b\r\nx-request-id: %b\r\n" % (self._trace.header, self._request_id)
        body = self._request.for_engine(engine.model)
        await self._around.pool(engine).send(self._exchange, self._way.engine_path, headers, body)

    async def _relay_answer(self, send: Send) -> None:
        body, self._usage = rewrite_answer(await self._whole(), self._request.model)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *self.headers(),
        ]
        self._answering = True
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _whole(self) -> bytes:
        try:
            return await self._exchange.read(self._around.max_answer_bytes)
        except TooLong:  # as long as the request had it made: the version is not to blame
            what = "ask for fewer tokens, choices or logprobs, or for a stream"
            fix = what if self._way.generates else "send fewer texts at once"
            raise Refused(f"The answer would be too long; {fix}.", status=413) from None

    async def _relay_events(self, send: Send) -> None:
        exchange, relay = self._exchange, EventRelay(self.target.engine.model, self._request.model)
        chunk = await exchange.chunk()
        events = relay.feed(chunk)
        while chunk and not events:
            chunk = await exchange.chunk()
            events = relay.feed(chunk)
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"), *self.headers()]
        self._answering = True
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while chunk:
            if events:
                await send({"type": "http.response.body", "body": events, "more_body": True})
            chunk = await exchange.chunk()
            events = relay.feed(chunk)
        if not relay.done:
            raise Broken("The engine's stream ended before its last event.")
        self._usage = relay.usage()
        await send({"type": "http.response.body", "body": b""})

    async def _refusal(self) -> Refused:
        exchange, engine = self._exchange, self.target.engine
        answer = await exchange.read(1024 * 1024)
        secrets = (engine.url, engine.url.partition("://")[2], engine.key, engine.model)
        return refusal(exchange.status, exchange.retry_after, answer, self._request, secrets)

    async def _end_with(self, fault: EngineFault, send: Send) -> None:
        if not isinstance(fault, ClientGone):
            await send({"type": "http.response.body", "body": b"data: " + fault.body() + b"\n\n"})

    def _count(self, error: GatewayError | None, status: int, *, record: bool = True) -> None:
        target, exchange, usage = self.target, self._exchange, self._usage or Usage()
        total_ms = (self._loop.time() - self._began) * 1000
        ttft_ms = None
        if exchange.streaming and exchange.first_byte_at is not None:
            ttft_ms = (exchange.first_byte_at - self._began) * 1000
        kind = None if error is None else error.kind
        self._around.figures.count(
            target.endpoint,
            target.version,
            error=kind,
            revision=target.revision,
            total_ms=total_ms,
            ttft_ms=ttft_ms,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
        )
        if record:
            self._around.record(
                Served(
                    time=self._began_at,
                    request_id=self._request_id.decode("latin-1"),
                    trace_id=self._trace.trace_id,
                    endpoint=target.endpoint,
                    version=target.version,
                    revision=target.revision,
                    status=status,
                    duration_ms=round(total_ms, 3),
                    ttft_ms=None if ttft_ms is None else round(ttft_ms, 3),
                    prompt_tokens=usage.prompt_tokens,
                    completion_tokens=usage.completion_tokens,
                    error=kind,
                    instead_of=self._instead_of,
                ),
                self._trace,
            )
