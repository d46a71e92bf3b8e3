"""Images shown as PNG by a process of its own, which is kept for the next; the service itself decodes nothing.

A process serves one dataset, so that an image which takes it over sees those of no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from kit.rpc.errors import Exhausted, Internal, Invalid
from kit.telemetry import get_log
from services.dataset.checks import Checker, Spare, wire

log = get_log(__name__)
MAX_MEMORY_BYTES = 1 << 30
MAX_S = 60.0
IDLE_S = 60.0


class Renderer:
    """At most one process, one image at a time."""

    def __init__(self, spare: Spare, max_s: float = MAX_S) -> None:
        self._spare = spare
        self._max_s = max_s
        self._turn = asyncio.Lock()
        self._checker: Checker | None = None
        self._dataset = ""
        self._watching: asyncio.Task[None] | None = None
        self._idling: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[int]] = set()

    async def png(self, of: str, data: AsyncIterator[bytes], frame: int) -> bytes:
        """The image of a dataset as PNG.

        Raises Invalid for what is no image, Exhausted when it takes too much, and as `data`.
        """
        async with self._turn:
            content = b"".join([piece async for piece in data])  # one at a time is in memory
            try:
                checker = await self._ready(of)
                async with asyncio.timeout(self._max_s):
                    job = wire.encode(wire.Job(len(content), frame))
                    await checker.send(wire.COUNT.pack(len(job)), job, content)
                    kind, answer = await checker.receive()
            except (TimeoutError, EOFError, BrokenPipeError):
                await self.close()
                raise Exhausted("the image takes too much time or memory to be shown; read the original") from None
            except asyncio.CancelledError:
                await self.close()
                raise
            self._rest()
        if kind == wire.ASIDE:
            return answer
        if kind == wire.DONE:
            refused = wire.decode(answer, type=wire.Refused)
            raise Invalid(f"the asset cannot be shown: {refused.found}; {refused.repair}")
        broke = wire.decode(answer, type=wire.Broke)
        log.error("rendering_broke", cause=broke.cause, place=f"{broke.file}:{broke.line}")
        await self.close()
        raise Internal("showing the image met a fault of the suite; read the original")

    async def close(self) -> None:
        """Ends the process, if there is one."""
        checker, self._checker = self._checker, None
        if self._watching is not None:
            self._watching.cancel()
        if self._idling is not None:
            self._idling.cancel()
        if checker is not None:
            await checker.end()

    async def _ready(self, of: str) -> Checker:
        if self._idling is not None:
            self._idling.cancel()
        if self._checker is not None and (self._dataset != of or self._checker.process.poll() is not None):
            await self.close()
        if self._checker is None:
            self._checker, self._dataset = self._spare.take(), of
            task = wire.encode(wire.Show())
            self._watching = asyncio.create_task(self._watch(self._checker))
            await self._checker.send(wire.COUNT.pack(len(task)), task)
        return self._checker

    async def _watch(self, checker: Checker) -> None:
        await checker.outgrow(MAX_MEMORY_BYTES)
        if checker.process.poll() is None:
            checker.process.kill()

    def _rest(self) -> None:
        self._idling = asyncio.get_running_loop().call_later(IDLE_S, self._end_idle)

    def _end_idle(self) -> None:
        checker = self._checker
        if self._turn.locked() or checker is None:
            return
        self._checker = None  # at once: whoever wants an image now gets another
        if self._watching is not None:
            self._watching.cancel()
        task = asyncio.create_task(checker.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
