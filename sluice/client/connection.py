"""One channel to a suite: where it is, with whose key, in which project; it knows no resource.

Safe repeats and request ids are the channel's (kit.rpc.client); here come deadlines, faults instead of
RpcErrors, pages, and streams that pick up again after a break.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeVar

import grpc

from kit.rpc.client import connect
from kit.rpc.errors import Fault, Unavailable, from_rpc_error
from sluice.client import names
from sluice.credentials import DEFAULT_ADDRESS, DEFAULT_PROJECT, canonical, recall
from sluice.local_suite import home_of, local_address

Request = TypeVar("Request")
Response = TypeVar("Response")
Item = TypeVar("Item")
Metadata = tuple[tuple[str, str], ...]

#: How long a stream may stay broken before its caller is told.
PATIENCE_S = 30.0
#: A stream that breaks after so long was open; sooner, the channel was still trying to reach the suite.
CONNECTED_S = 6.0
PAGE_SIZE = 100


def address_of(address: str = "") -> str:
    """Where the suite is: the argument, SLUICE_ADDRESS, the one that runs in SLUICE_HOME, or the default port here."""
    return canonical(address or os.environ.get("SLUICE_ADDRESS") or local_address(home_of()) or DEFAULT_ADDRESS)


class Connection:
    """A channel with what every call needs. Nothing is sent before the first call."""

    def __init__(
        self,
        address: str = "",
        api_key: str = "",
        project: str = "",
        *,
        tls: grpc.ChannelCredentials | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Looks empty arguments up: see ``address_of``; SLUICE_API_KEY, SLUICE_PROJECT, the credentials file."""
        self.address = address_of(address)
        api_key, project = (
            api_key or os.environ.get("SLUICE_API_KEY", ""),
            project or os.environ.get("SLUICE_PROJECT", ""),
        )
        if not api_key or not project:
            known = recall(self.address)
            api_key, project = (
                api_key or (known.api_key if known else ""),
                project or (known.project if known else ""),
            )
        self.project = names.project(project or DEFAULT_PROJECT)
        self.timeout_s = timeout_s
        self.channel = connect(self.address, token=api_key or None, tls=tls)

    async def close(self) -> None:
        """Ends the channel and every call on it."""
        await self.channel.close()

    def fault(self, error: grpc.RpcError) -> Fault:
        """What the suite, or its silence, meant."""
        return from_rpc_error(error, f"the suite at {self.address}")

    async def call(
        self,
        method: Callable[..., Awaitable[Response]],
        request: object,
        *,
        timeout_s: float | None = None,
        metadata: Metadata = (),
    ) -> Response:
        """One unary rpc; raises the Fault the suite sent."""
        try:
            return await method(request, timeout=timeout_s or self.timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            raise self.fault(error) from None

    async def send(self, method: Callable[..., Awaitable[Response]], requests: AsyncIterator[object]) -> Response:
        """One client stream; raises the Fault the suite sent, or whatever ``requests`` raised."""
        broken: list[Exception] = []

        async def guarded() -> AsyncIterator[object]:
            try:
                async for request in requests:
                    yield request
            except Exception as error:
                broken.append(error)
                raise

        try:
            return await method(guarded())
        except grpc.RpcError as error:
            raise self.fault(error) from None
        except asyncio.CancelledError:  # what grpc.aio makes of an iterator that raises
            if broken:
                raise broken[0] from None
            raise

    async def pages(
        self,
        method: Callable[..., Awaitable[Any]],
        request: Any,
        items: Callable[[Any], Iterable[Item]],
        *,
        limit: int = 0,
        metadata: Metadata = (),
    ) -> AsyncIterator[Item]:
        """Every item of every page, at most ``limit`` (0: all); ``request`` is filled in and reused."""
        request.page_size = min(limit, PAGE_SIZE) if limit else PAGE_SIZE
        given = 0
        while True:
            page = await self.call(method, request, metadata=metadata)
            for item in items(page):
                yield item
                given += 1
                if given == limit:
                    return
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def stream(
        self, method: Callable[..., Any], request: object, *, metadata: Metadata = ()
    ) -> AsyncIterator[Any]:
        """One server stream, not repeated; leaving the loop cancels the rpc."""
        call = method(request, metadata=metadata)
        try:
            async for message in call:
                yield message
        except grpc.RpcError as error:
            raise self.fault(error) from None
        finally:
            call.cancel()

    async def follow(
        self,
        open_stream: Callable[[], AsyncIterator[Item]],
        is_over: Callable[[Item], bool] = lambda item: False,
    ) -> AsyncGenerator[Item]:
        """A stream that is opened again when it breaks or ends early, until an item says that all is over.

        Raises Unavailable when nothing came at first, or for PATIENCE_S later, and any other fault at once.
        """
        loop = asyncio.get_running_loop()
        heard, pause_s = float("-inf"), 0.1
        while True:
            broken, began = None, loop.time()
            try:
                async for item in open_stream():
                    heard, pause_s = loop.time(), 0.1
                    yield item
                    if is_over(item):
                        return
            except Unavailable as fault:
                broken = fault
                if loop.time() - began > CONNECTED_S:  # a quiet stream that stood for a while
                    heard = loop.time()
            if broken and loop.time() - heard > PATIENCE_S:
                raise broken
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 2.0)


async def gather(items: AsyncIterator[Item]) -> list[Item]:
    """All items of an asynchronous iterator."""
    return [item async for item in items]
