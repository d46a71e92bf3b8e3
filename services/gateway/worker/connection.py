"""One HTTP/1.1 connection to an engine, with one exchange at a time; knows no routes, retries or pools."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from services.gateway.worker.errors import Broken
from services.gateway.worker.exchange import Exchange


class Connection(asyncio.Protocol):
    """Carries one exchange at a time. `released` is called when it is free again, `lost` once when it is
    gone.
    """

    def __init__(self, released: Callable[[Connection], None], lost: Callable[[Connection], None]) -> None:
        self._released = released
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._informational = False
        self.paused = False
        self.exchanges = 0
        self.idle_since = 0.0

    def send(self, head: bytes, body: bytes, exchange: Exchange) -> None:
        """Write a request whose head (with its blank line) frames `body`; the answer goes to `exchange`."""
        assert self._transport is not None
        self._exchange = exchange
        self.exchanges += 1
        exchange.sent(self)
        if len(body) < 16_384:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    @property
    def closing(self) -> bool:
        """Whether it can't carry another exchange."""
        return self._transport is None or self._transport.is_closing()

    def drop(self) -> None:
        """Close at once, without waiting for what is still to be written."""
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        if not self.paused and self._transport is not None:
            self.paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self.paused and self._transport is not None:
            self.paused = False
            self._transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        exchange, self._exchange = self._exchange, None
        self._lost(self)
        if exchange is not None:
            exchange.fail(Broken("The engine closed the connection before its answer was complete."))

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:  # an engine that speaks unasked can't be trusted with the next request
            self.drop()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            exchange = self._exchange
            if exchange is not None:
                exchange.fail(Broken("The engine's answer is not HTTP/1.1."))
            else:
                self.drop()

    # httptools

    def on_message_begin(self) -> None:
        if self._exchange is None:
            self.drop()

    def on_header(self, name: bytes, value: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        name = name.lower()
        if name == b"content-type":
            exchange.content_type = value
        elif name == b"retry-after":
            exchange.retry_after = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self._informational = status < 200
        if self._exchange is not None and not self._informational:
            self._exchange.status = status

    def on_body(self, body: bytes) -> None:
        if self._exchange is not None:
            self._exchange.body(body)

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange is None or self._informational:
            return
        self._exchange = None
        self.resume()
        if self._parser.should_keep_alive():
            self._released(self)
        else:
            self.drop()
        exchange.finished()
