"""Asynchronous methods as plain ones: run on a private event loop in a thread; it knows no client.

``blocking(Jobs.get)`` in a class body makes a method with the same parameters, types and docstring.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_END: Any = object()


class LoopThread:
    """An event loop in a daemon thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sluice-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``; a KeyboardInterrupt in the caller cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """The items as they come; leaving the loop early closes the asynchronous iterator."""
        try:
            while True:
                item = self.run(_next(items))
                if item is _END:
                    return
                yield item
        finally:
            if not self._loop.is_closed():
                self.run(_close(items))

    def stop(self) -> None:
        """Ends loop and thread; a second time does nothing."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


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


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items, _END)


async def _close(items: AsyncIterator[Any]) -> None:
    close = getattr(items, "aclose", None)
    if close:
        await close()
