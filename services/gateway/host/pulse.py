"""Which engines answer, told quickly however slow they are; it replaces none and knows no version."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from services.gateway.engines.errors import EngineError
from services.gateway.engines.served import Running


class Pulse:
    """Asks each engine one real question at a time and says what the last ended one said.

    A full engine answers late, and taking it for dead would turn a queue into an outage: until `probe` gives up on
    it, its last answer holds. `probe` takes the digest of a base and raises EngineError when its engine is lost.
    """

    def __init__(self, probe: Callable[[str], Awaitable[None]], *, patience_s: float = 2.0) -> None:
        self._probe, self._patience_s = probe, patience_s
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._silent: set[str] = set()

    async def answering(self, running: Sequence[Running]) -> list[Running]:
        """Those of `running` whose engine answers; returns within `patience_s`."""
        engines = {each.url: each.base_digest for each in running}
        self._silent &= engines.keys()
        for url, base_digest in engines.items():
            if url not in self._asked:
                self._asked[url] = asyncio.create_task(self._ask(url, base_digest))
        if tasks := [self._asked[url] for url in engines]:
            await asyncio.wait(tasks, timeout=self._patience_s)
        return [each for each in running if each.url not in self._silent]

    async def _ask(self, url: str, base_digest: str) -> None:
        try:
            await self._probe(base_digest)
            self._silent.discard(url)
        except EngineError:
            self._silent.add(url)
        finally:
            del self._asked[url]

    async def aclose(self) -> None:
        """Stop asking."""
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
