"""One checking process in waiting, so that a file is not kept waiting for Arrow to be loaded."""

from __future__ import annotations

import asyncio

from services.dataset.checks.parent import Checker

#: Seconds after which a process that nobody wanted ends.
IDLE_S = 60.0


class Spare:
    """Starts a process when an upload begins and hands it over when the upload is complete."""

    def __init__(self, idle_s: float = IDLE_S) -> None:
        self.waiting: Checker | None = None
        self._idle_s = idle_s
        self._ending: asyncio.Task[None] | None = None

    def prepare(self) -> None:
        """Has a process ready soon."""
        if self.waiting is None:
            self.waiting = Checker()
            self._ending = asyncio.create_task(self._end_idle())

    def take(self) -> Checker:
        """The process in waiting, or a new one."""
        checker, self.waiting = self.waiting, None
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        return checker if checker is not None and checker.process.poll() is None else Checker()

    async def close(self) -> None:
        """Ends what is in waiting."""
        if self.waiting is not None:
            await self.take().end()

    async def _end_idle(self) -> None:
        await asyncio.sleep(self._idle_s)
        checker, self.waiting = self.waiting, None
        if checker is not None:
            await checker.end()
