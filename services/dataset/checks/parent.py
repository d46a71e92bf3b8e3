"""Gives a checking process its task and the bytes it asks for, and gives back what it finds."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol, TypeVar

from kit.rpc.errors import Corrupt, NotFound
from services.dataset.checks import wire
from services.dataset.checks.process import Checker

#: What a checking process may hold; a task that needs more is given up.
MAX_MEMORY_BYTES = 1 << 30
#: Seconds without a word after which a process is given up.
MAX_SILENCE_S = 120.0
#: What a process gets at once, whatever it asks for.
MAX_READ_BYTES = 8 << 20

T = TypeVar("T")


class Source(Protocol):
    """The bytes that a task is about."""

    async def read(self, start: int, length: int) -> bytes:
        """Exactly these bytes. Raises Corrupt or NotFound when they are damaged or gone."""


class Progress(NamedTuple):
    """How many rows have been looked at."""

    rows: int


class Shelf(Protocol):
    """The assets that came beside a file."""

    async def page(self, after: str) -> list[wire.Named]:
        """Some of them whose paths come after this one, in order; none when there are no more."""

    def fetch(self, digest: str) -> AsyncIterator[bytes]:
        """The bytes of one of them; the first step raises NotFound or Corrupt when they are gone."""

    async def size(self, digest: str) -> int:
        """The number of its bytes; raises NotFound when it is none of them."""


Event = Progress | wire.Part | wire.Aside | wire.Asset | wire.Outcome | wire.Found


class CheckFailed(Exception):
    """The process did not come to an outcome; ``why`` is a clause for people, without any content."""

    def __init__(self, why: str, *, ours: bool, place: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.ours = ours
        self.place = place


class CheckKilled(CheckFailed):
    """Somebody else ended the process: as a rule the system, which had run out of memory."""


async def run(
    checker: Checker,
    task: wire.AnyTask,
    source: Source,
    shelf: Shelf | None = None,
    *,
    max_memory_bytes: int = MAX_MEMORY_BYTES,
    max_silence_s: float = MAX_SILENCE_S,
) -> AsyncGenerator[Event]:
    """Yields what comes of a task: how far it is, the parts of a file in order, at last the outcome.

    Raises CheckFailed, and what ``source`` does. The process ends with it.
    """
    async with _watched(checker, task, max_memory_bytes) as excess:

        async def within(step: Awaitable[T]) -> T:
            """What the process does next, if it does it in time."""
            try:
                async with asyncio.timeout(max_silence_s):
                    return await step
            except TimeoutError:
                raise CheckFailed(f"{task.what} stood still for {max_silence_s:.0f} s", ours=False) from None
            except (EOFError, BrokenPipeError):
                code = await checker.end()
                died = CheckKilled if code == -signal.SIGKILL else CheckFailed
                raise excess() or died(f"{task.what} ended with code {code}", ours=True) from None

        described = wire.encode(task)
        await within(checker.send(wire.COUNT.pack(len(described)), described))
        while True:
            kind, content = await within(checker.receive())
            match kind:
                case wire.READ:
                    start, length = wire.PLACE.unpack(content)
                    await within(checker.send(await source.read(start, min(length, MAX_READ_BYTES))))
                case wire.LIST if shelf is not None:
                    some = wire.encode(await shelf.page(content.decode()))
                    await within(checker.send(wire.COUNT.pack(len(some)), some))
                case wire.FETCH if shelf is not None:
                    async for piece in _sized(shelf, content.decode()):
                        await within(checker.send(piece))
                case wire.ASSET:
                    yield _asset(content)
                case wire.TICK:
                    yield Progress(*wire.COUNT.unpack(content))
                case wire.PART:
                    yield _part(content)
                case wire.ASIDE:
                    yield wire.Aside(content)
                case wire.DONE:
                    checked = isinstance(task, wire.Task)
                    yield wire.decode(content, type=wire.Outcome) if checked else wire.Found(content)
                    return
                case _:
                    broke = wire.decode(content, type=wire.Broke)
                    raise CheckFailed(broke.cause, ours=True, place=f"{broke.file}:{broke.line}")


def _part(content: bytes) -> wire.Part:
    head, rest = _parted(content)
    said = wire.decode(head, type=wire.PartHead)
    return wire.Part(rest, said.split_rows, said.assets)


def _asset(content: bytes) -> wire.Asset:
    (size,) = wire.COUNT.unpack_from(content)
    whole = memoryview(content)  # an asset may be large, and is not copied
    head = wire.decode(whole[wire.COUNT.size : wire.COUNT.size + size], type=wire.AssetHead)
    return wire.Asset(head, whole[wire.COUNT.size + size :])


def _parted(content: bytes) -> tuple[bytes, bytes]:
    (size,) = wire.COUNT.unpack_from(content)
    start = wire.COUNT.size + size
    return content[wire.COUNT.size : start], content[start:]


async def _sized(shelf: Shelf, digest: str) -> AsyncIterator[bytes]:
    """How many bytes there are, then the bytes."""
    try:
        size, pieces = await shelf.size(digest), shelf.fetch(digest)
        first = await anext(pieces, b"")
    except (NotFound, Corrupt):
        yield wire.COUNT.pack(wire.GONE)
        return
    yield wire.COUNT.pack(size)
    yield first
    async for piece in pieces:
        yield piece


@asynccontextmanager
async def _watched(checker: Checker, task: wire.AnyTask, most: int) -> AsyncIterator[Callable[[], CheckFailed | None]]:
    """Kills the process when it takes too much memory, what it gives says so afterwards; and in any case at the end."""
    killed: list[CheckFailed] = []

    async def watch() -> None:
        await checker.outgrow(most)
        if checker.process.poll() is None:
            why = f"{task.what} wanted more than {most >> 20} MiB of memory; {task.remedy}"
            killed.append(CheckFailed(why, ours=False))
            checker.process.kill()

    watching = asyncio.create_task(watch())
    try:
        yield lambda: killed[0] if killed else None
    finally:
        watching.cancel()
        await checker.end()
