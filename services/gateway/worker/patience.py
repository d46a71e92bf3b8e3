"""Spends timers and tasks on what proves slow; the rest costs a list append. Knows nothing of requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

TICK_S = 0.02


class Patience:
    """Calls what was added within a tick, in the running loop; no timer runs while nothing waits."""

    def __init__(self, tick_s: float = TICK_S) -> None:
        self._tick_s = tick_s
        self._waiting: list[Callable[[], None]] = []
        self._ticking = False

    def add(self, when_slow: Callable[[], None]) -> None:
        """Call `when_slow` at the next tick; it must return at once if its matter is over by then."""
        self._waiting.append(when_slow)
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(self._tick_s, self._tick)

    def _tick(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._ticking = False
        for when_slow in waiting:
            when_slow()
