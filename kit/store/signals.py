"""A signal that wakes whoever waits for a change in the database, and the watch loop on it; what changed is unsaid."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar


class Signal:
    """Counts changes; a waiter that remembers the count it saw misses none."""

    def __init__(self) -> None:
        self.count = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def fire(self) -> None:
        """Wakes all who wait."""
        self.count += 1
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, seen: int, timeout_s: float) -> int:
        """Returns the count as soon as it differs from ``seen``, and after ``timeout_s`` in any case."""
        if self.count == seen:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                await asyncio.wait([waiter], timeout=timeout_s)
            finally:
                self._waiting.discard(waiter)
        return self.count


class Tagged(Protocol):
    """A resource whose etag differs after every write."""

    @property
    def etag(self) -> str: ...


TaggedT = TypeVar("TaggedT", bound=Tagged)


async def watch(
    read: Callable[[], Awaitable[TaggedT]], changed: Signal, every_s: float = 1.0
) -> AsyncIterator[TaggedT]:
    """Yields what ``read`` gives, first as it is and then whenever its etag differs; ends when ``read`` raises.

    Snapshots may be skipped, never the last one. ``every_s`` bounds the delay of changes by other processes.
    """
    last = None
    while True:
        seen = changed.count
        resource = await read()
        if resource.etag != last:
            last = resource.etag
            yield resource
        await changed.wait(seen, every_s)
