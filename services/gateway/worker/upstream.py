"""The pooled client of one engine: keep-alive, bounded, with a breaker; knows no versions and never retries
an answer.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from services.gateway.worker.connection import Connection
from services.gateway.worker.errors import (
    Broken,
    Busy,
    ClientGone,
    Ejected,
    EngineFault,
    TimedOut,
    Unreachable,
)
from services.gateway.worker.exchange import Exchange, Timeouts
from services.gateway.worker.snapshot import Upstream

# uvicorn, under most engines, closes an idle connection after 5 s: stop using it before that.
IDLE_REUSE_S = 4.0
MAX_IDLE = 256
# A connection that the engine had closed says so within a round trip; one lost later took the request along.
STALE_S = 0.5
FAILURES_TO_EJECT = 3
EJECTED_S = 2.0


class EnginePool:
    """Connections to one engine. Its breaker opens after three failures in a row with no answer between them,
    lets one request try every two seconds, and closes with the first answer."""

    def __init__(self, upstream: Upstream, timeouts: Timeouts, *, max_connections: int = 1024) -> None:
        url = urlsplit(upstream.url)
        self._host = url.hostname or ""
        self._tls = url.scheme == "https"
        self._port = url.port or (443 if self._tls else 80)
        self._prefix = url.path.rstrip("/")
        self._netloc = url.netloc.rpartition("@")[2]
        self._key = upstream.key
        self._heads: dict[str, bytes] = {}
        self._timeouts = timeouts
        self._max_connections = max_connections
        self._connections = 0
        self._idle: list[Connection] = []
        self._failures = 0
        self._ejected_until = 0.0
        self._retired = False
        self._loop = asyncio.get_running_loop()

    async def send(self, exchange: Exchange, path: str, headers: bytes, body: bytes) -> None:
        """POST `body` to `path` and return when the answer begins (or is whole, if it doesn't stream).

        `headers` are whole lines, each with its CRLF. Sent twice only if a kept connection turned out dead
        before a byte was received. Raises Unreachable, Broken, TimedOut, Busy or ClientGone.
        """
        if exchange.error is not None:
            raise exchange.error
        self._admit()
        head = b"%b%bcontent-length: %d\r\n\r\n" % (self._head(path), headers, len(body))
        try:
            if not await self._send_on_kept(exchange, head, body):
                connection = await self._connect()
                if exchange.error is not None:  # the client left while we connected
                    self._release(connection)
                    raise exchange.error
                connection.send(head, body, exchange)
                await exchange.started()
        except EngineFault as error:
            self._note(error)
            raise
        self._failures = 0

    def retire(self) -> None:
        """No route names the engine any more: close what is idle, and the rest when it is free."""
        self._retired = True
        for connection in self._idle:
            connection.drop()
        self._idle.clear()

    async def _send_on_kept(self, exchange: Exchange, head: bytes, body: bytes) -> bool:
        connection = self._kept()
        if connection is None:
            return False
        connection.send(head, body, exchange)
        try:
            await exchange.started()
        except Broken:
            stale = exchange.status == 0 and self._loop.time() - exchange.sent_at < STALE_S
            if not stale or exchange.first_byte_at is not None:
                raise
            exchange.error = None
            return False
        return True

    def _kept(self) -> Connection | None:
        now = self._loop.time()
        while self._idle:
            connection = self._idle.pop()
            if not connection.closing and now - connection.idle_since < IDLE_REUSE_S:
                return connection
            connection.drop()
        return None

    async def _connect(self) -> Connection:
        if self._connections >= self._max_connections:
            raise Busy("The engine has as many requests as it may hold; try again in a moment.")
        self._connections += 1
        try:
            async with asyncio.timeout(self._timeouts.connect_s):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._release, self._lost),
                    self._host,
                    self._port,
                    ssl=self._tls or None,
                )
        except BaseException as error:
            self._connections -= 1
            if isinstance(error, OSError):  # TimeoutError is one
                raise Unreachable("The engine can't be reached; try again in a moment.") from None
            raise
        return connection

    def _release(self, connection: Connection) -> None:
        if self._retired or len(self._idle) >= MAX_IDLE:
            connection.drop()
        else:
            connection.idle_since = self._loop.time()
            self._idle.append(connection)

    def _lost(self, connection: Connection) -> None:
        self._connections -= 1
        if connection in self._idle:
            self._idle.remove(connection)

    def _admit(self) -> None:
        if self._failures < FAILURES_TO_EJECT:
            return
        now = self._loop.time()
        if now < self._ejected_until:
            raise Ejected("The engine failed several times in a row and is being let alone; try again in a moment.")
        self._ejected_until = now + EJECTED_S  # this request is the probe; the others wait for its answer

    def _note(self, error: EngineFault) -> None:
        if isinstance(error, (ClientGone, Busy)):
            return
        if isinstance(error, (Unreachable, TimedOut, Broken)):
            self._failures += 1
            if self._failures == FAILURES_TO_EJECT:
                self._ejected_until = self._loop.time() + EJECTED_S

    def _head(self, path: str) -> bytes:
        head = self._heads.get(path)
        if head is None:
            lines = [
                f"POST {self._prefix}{path} HTTP/1.1",
                f"host: {self._netloc}",
                "content-type: application/json",
            ]
            if self._key:
                lines.append(f"authorization: Bearer {self._key}")
            head = self._heads[path] = "".join(f"{line}\r\n" for line in lines).encode("latin-1")
        return head
