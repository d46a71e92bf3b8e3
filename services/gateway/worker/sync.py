"""Follows the routes of the control process and the registry's revocations; it decides nothing about either.

The two come by different ways on purpose: a control process that is away takes no right to serve with it, and keeps
none alive that the registry took back.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc

from kit.telemetry import get_log
from services.gateway.worker.app import Worker
from services.gateway.worker.figures import Series
from services.gateway.worker.translation import arm_sample, route_table
from sluice.events import v1 as events
from sluice.gateway import v1 as gateway

log = get_log(__name__)

REVOKED = "sluice.registry.v1.model_version.revoked"
#: How far the clocks of two hosts may be apart.
CLOCKS_S = 300.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
Pause = Callable[[float], float]


def _jitter(longest_s: float) -> float:
    return random.uniform(0.5, 1.0) * longest_s


async def _keep_up(stream: str, follow: Callable[[Callable[[], None]], Awaitable[None]], pause: Pause) -> None:
    """Follows a stream again and again until cancelled; nothing else ends it. `follow` calls what it is given when
    something came.
    """
    longest_s = _FIRST_PAUSE_S

    def came() -> None:
        nonlocal longest_s
        longest_s = _FIRST_PAUSE_S

    while True:
        try:
            await follow(came)
            cause = "ended"
        except grpc.aio.AioRpcError as error:
            cause = error.code().name
        except Exception:  # what is in force must outlive any fault of one message
            log.error("stream_failed", stream=stream, exc_info=True)
            cause = "INTERNAL"
        log.warning("stream_lost", stream=stream, cause=cause)
        await asyncio.sleep(pause(longest_s))
        longest_s = min(longest_s * 2, _LONGEST_PAUSE_S)


class RevocationSync:
    """Takes from the worker what the registry takes back, in the order of its log; misses nothing in between."""

    def __init__(self, worker: Worker, stub: events.EventServiceAsyncStub, *, pause: Pause = _jitter) -> None:
        self._worker, self._stub, self._pause = worker, stub, pause
        self._request = events.WatchEventsRequest()
        # What was taken back before, no table that is told from now on has in it.
        self._request.since.FromSeconds(int(time.time() - CLOCKS_S))

    async def run(self) -> None:
        """Works until cancelled; nothing else ends it."""
        await _keep_up("revocations", self._follow, self._pause)

    async def _follow(self, came: Callable[[], None]) -> None:
        async for response in self._stub.WatchEvents(self._request):
            came()
            if response.event.type == REVOKED:
                self._worker.revoke(response.event.subject)
            self._request.after_sequence = response.event.sequence


class RouteSync:
    """One worker's stream to the control process; the last good table stays while there is none.

    Every table is confirmed as soon as it is in force, figures go out every `every_s`, and those that no stream
    took wait for the next. `pause` turns the longest pause before the next attempt into the one that is made.
    """

    def __init__(
        self,
        worker: Worker,
        name: str,
        stub: gateway.RouteServiceAsyncStub,
        *,
        every_s: float = 0.5,
        pause: Pause = _jitter,
    ) -> None:
        self._worker, self._name, self._stub = worker, name, stub
        self._every_s, self._pause = every_s, pause
        self._swapped = asyncio.Event()
        self._unsent: list[Series] = []

    async def run(self) -> None:
        """Keeps the worker's table equal to the control process's until cancelled; nothing else ends it."""
        await _keep_up("routes", self._follow, self._pause)

    async def _follow(self, came: Callable[[], None]) -> None:
        async for response in self._stub.SyncRoutes(self._news()):
            self._take(response.table)
            came()

    def _take(self, message: gateway.RouteTable) -> None:
        try:
            table = route_table(message)
        except ValueError as refused:
            log.error("route_table_refused", revision=message.revision, cause=str(refused))
            return
        self._worker.swap_routes(table)
        self._swapped.set()

    async def _news(self) -> AsyncIterator[gateway.SyncRoutesRequest]:
        told = -1  # a new stream: say first what is in force, if only that nothing is
        while True:
            self._swapped.clear()
            revision = self._worker.revision or 0
            self._unsent += self._worker.figures.drain()
            if revision != told or self._unsent:
                samples = [arm_sample(series) for series in self._unsent]
                yield gateway.SyncRoutesRequest(worker=self._name, revision=revision, samples=samples)
                told, self._unsent = revision, []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._swapped.wait()
