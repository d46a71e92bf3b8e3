"""One answer of an engine as it arrives, with its deadlines and its back-pressure; knows no sockets and no
HTTP.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from services.gateway.worker.errors import ClientGone, EngineFault, TimedOut, TooLong

HIGH_WATER_BYTES = 256 * 1024


class Carrier(Protocol):
    """What carries an exchange: reading can be held back, and it can be dropped at once."""

    paused: bool

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def drop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `first_byte_s` and `idle_s` bound a stream, `total_s` an answer in one piece."""

    connect_s: float = 2.0
    first_byte_s: float = 60.0
    idle_s: float = 30.0
    total_s: float = 600.0
    request_body_s: float = 30.0


class Exchange:
    """One request's answer as it arrives: status and a few headers, then chunks until `b""`.

    A streaming exchange wakes its reader for every piece; another only when the answer is whole. The reader
    that falls behind by 256 KiB stops the engine's connection from being read, and no timeout runs while it
    does.
    """

    def __init__(self, timeouts: Timeouts, loop: asyncio.AbstractEventLoop, *, streaming: bool) -> None:
        self.timeouts = timeouts
        self.streaming = streaming
        self.status = 0
        self.content_type = b""
        self.retry_after = b""
        self.first_byte_at: float | None = None
        self.sent_at = 0.0
        self.error: EngineFault | None = None
        self.complete = False
        self._chunks: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._connection: Carrier | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._timed = False
        self._loop = loop

    async def started(self) -> None:
        """Wait until there is something to read. Raises Broken, TimedOut or ClientGone when there never will
        be.
        """
        while not (self._chunks or self.complete or self.error):
            await self._wait()
        if self.error is not None and not self._chunks:
            raise self.error

    async def chunk(self) -> bytes:
        """The bytes of the body that arrived since the last call; `b""` at its end. Raises as `started`
        does.
        """
        await self.started()
        if not self._chunks:
            return b""
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        if self._connection is not None:
            self._connection.resume()
        return data

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body. Raises TooLong when it is longer than the limit."""
        data = await self.chunk()
        while not self.complete or self._chunks:
            more = await self.chunk()
            if len(data) + len(more) > limit_bytes:
                raise TooLong(f"The engine's answer is longer than {limit_bytes} bytes.")
            data += more
        return data

    def abort(self, error: EngineFault | None = None) -> None:
        """Give up now: closes the engine's connection unless the answer is whole; drops what was not read."""
        if not self.complete and self.error is None:
            self._chunks.clear()
            self.fail(error or ClientGone("The client closed the connection."))

    def fail(self, error: EngineFault) -> None:
        """End the exchange with an error, raised to the reader after the chunks that did arrive."""
        self.error = error
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop()
        self._end()

    def sent(self, connection: Carrier) -> None:
        """The request leaves on `connection`; called again for another only while nothing was received."""
        self._connection = connection
        self.sent_at = self._loop.time()
        self._deadline = self.sent_at + (self.timeouts.first_byte_s if self.streaming else self.timeouts.total_s)
        if self._timed:
            self._arm()

    def slow(self) -> None:
        """From here on the deadlines are kept. Quick answers never pay for a timer: see `Patience`."""
        if not self._timed and not self.complete and self.error is None:
            self._timed = True
            if self._connection is not None:
                self._arm()

    def body(self, data: bytes) -> None:
        """A piece of the body arrived."""
        now = self._loop.time()
        if self.first_byte_at is None:
            self.first_byte_at = now
        if self.streaming:
            self._deadline = now + self.timeouts.idle_s
        self._chunks.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER_BYTES and self._connection is not None:
            self._connection.pause()
            self._wake()
        elif self.streaming:
            self._wake()

    def finished(self) -> None:
        """The answer is whole."""
        self.complete = True
        self._connection = None
        self._end()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._on_deadline)

    def _on_deadline(self) -> None:
        # Chunks only move the deadline; the timer follows when it fires, so a chunk costs no timer.
        self._timer = None
        now = self._loop.time()
        if self._connection is not None and self._connection.paused:
            self._deadline = now + self.timeouts.idle_s
        if self._deadline > now:
            self._arm()
        elif self.first_byte_at is None:
            self.fail(TimedOut("The engine sent nothing in time; try again or ask for less."))
        else:
            self.fail(TimedOut("The engine stopped sending in the middle of its answer."))
