"""How far a sender may run ahead of what is safely stored; what it sends, and who tells what is stored, is not known
here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Self

#: What may be on its way and not stored yet: one chunk, and so no more is sent again, whoever dies.
CHUNK_BYTES = 8 << 20


class Acknowledged:
    """Holds a sender to one chunk ahead of the bytes that are stored, as they are told while the block lasts."""

    def __init__(self, stored: int, told: Callable[[], AsyncGenerator[int]]) -> None:
        """``told`` gives how many bytes are stored as it changes, and ends when no more are taken; it is first asked
        when a sender has to wait.
        """
        self._stored = stored
        self._told = told
        self._moved = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)

    async def room(self, end: int) -> None:
        """Returns when the bytes before `end` may be sent. Raises what `told` raises."""
        while end - self._stored > CHUNK_BYTES:
            self._listening = self._listening or asyncio.create_task(self._listen())
            if self._listening.done():
                return self._listening.result()  # what is sent now is refused, with the reason
            self._moved.clear()
            await self._moved.wait()

    async def _listen(self) -> None:
        try:
            async with aclosing(self._told()) as told:
                async for stored in told:
                    self._stored = stored
                    self._moved.set()
        finally:
            self._moved.set()
