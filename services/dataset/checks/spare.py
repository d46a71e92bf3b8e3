"""Has checking processes ready in no time, and nothing running while none are wanted."""

from __future__ import annotations

import asyncio

from services.dataset.checks.forks import Nursery
from services.dataset.checks.process import Checker, environ

#: Seconds after which a nursery that nobody wanted anything of ends.
IDLE_S = 60.0


class Spare:
    """Keeps a nursery while it is used."""

    def __init__(self, idle_s: float = IDLE_S) -> None:
        self.nursery: Nursery | None = None
        self._idle_s = idle_s
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def prepare(self) -> Nursery:
        """Has a nursery loaded soon; it stays for a while."""
        if self.nursery is None or not self.nursery.lives:
            self.nursery = Nursery(environ())
        self._rest()
        return self.nursery

    def take(self) -> Checker:
        """A process of its own for one task."""
        return Checker(self.prepare().fork())

    async def close(self) -> None:
        """Ends the nursery and what it has forked."""
        if self._timer is not None:
            self._timer.cancel()
        nursery, self.nursery = self.nursery, None
        if nursery is not None:
            await asyncio.to_thread(nursery.close)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._look)

    def _look(self) -> None:
        if self.nursery is not None and self.nursery.lives and not self.nursery.idle:
            self._rest()
            return
        nursery, self.nursery = self.nursery, None  # at once: whoever wants a process now gets another
        if nursery is None:
            return
        task = asyncio.create_task(asyncio.to_thread(nursery.close))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
