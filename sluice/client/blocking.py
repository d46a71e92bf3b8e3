"""Asynchronous methods as plain ones: run on a private event loop in a thread; it knows no client.

``blocking(Jobs.get)`` in a class body makes a method with the same parameters, types and docstring.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_END: Any = object()


class LoopThread:
    """An event loop in a daemon thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._waited_for: set[Future[Any]] = set()
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="sluice-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``; a KeyboardInterrupt in the caller cancels it. Raises RuntimeError once stopped."""
        if self._is_over:
            work.close()
            raise RuntimeError("this client is closed; make another")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._waited_for.add(future)
        try:
            if self._loop.is_closed():  # just now, and nobody will do the work
                future.cancel()
            return future.result()
        except BaseException:
            future.cancel()
            raise
        finally:
            self._waited_for.discard(future)

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """The items as they come, the next one while one is used; leaving early closes the asynchronous iterator."""
        ahead = _Ahead(items)
        try:
            while (item := self.run(ahead.next())) is not _END:
                yield item
        finally:
            if threading.current_thread() is self._thread:  # collected here, so nobody waits
                self._loop.create_task(ahead.close())
            elif not self._is_over:
                self.run(ahead.close())

    def stop(self) -> None:
        """Ends loop and thread, and cancels what somebody waits for; a second time does nothing."""
        if self._is_over:
            return
        self._is_over = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(_cancel_others())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
        for future in list(self._waited_for):
            future.cancel()


class Facade:
    """A group of methods that run on ``loop``; ``group`` has the asynchronous ones."""

    def __init__(self, loop: LoopThread, group: Any) -> None:
        self._loop = loop
        self._group = group


def blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Facade, P], T]:
    """A method that waits for the asynchronous one."""

    @functools.wraps(method)
    def wait(self: Facade, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run(method(self._group, *args, **kwargs))

    return wait


def iterating(
    method: Callable[Concatenate[Any, P], AsyncIterator[T]],
) -> Callable[Concatenate[Facade, P], Iterator[T]]:
    """A method that iterates over what the asynchronous one yields."""

    @functools.wraps(method)
    def walk(self: Facade, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._loop.iterate(method(self._group, *args, **kwargs))

    return walk


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class _Ahead:
    """An asynchronous iterator of which the next item is on its way while one is used."""

    def __init__(self, items: AsyncIterator[Any]) -> None:
        self._items = items
        self._coming: asyncio.Future[Any] | None = None

    async def next(self) -> Any:
        """The next item, or _END."""
        self._coming = self._coming or self._begin()
        item = await self._coming
        self._coming = self._begin() if item is not _END else None
        return item

    async def close(self) -> None:
        """Gives up what is on its way."""
        if self._coming:
            self._coming.cancel()
            await asyncio.gather(self._coming, return_exceptions=True)
        close = getattr(self._items, "aclose", None)
        if close:
            await close()

    def _begin(self) -> asyncio.Future[Any]:
        return asyncio.ensure_future(anext(self._items, _END))
