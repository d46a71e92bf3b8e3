"""Starts a checking process, hands it the bytes it asks for, and gives back what it finds."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import IO, Any, NamedTuple, Protocol, TypeVar

import psutil

from services.dataset.checks import wire

#: What a checking process may hold; a file that needs more is refused.
MAX_MEMORY_BYTES = 1 << 30
#: Seconds without a word after which a process is given up.
MAX_SILENCE_S = 120.0
#: What a process gets at once, whatever it asks for.
MAX_READ_BYTES = 8 << 20
_LOOK_S = 0.25
#: What a pipe holds, where the system lets us say so; the usual 64 KiB make a hop of every piece.
_PIPE_BYTES = 1 << 20


T = TypeVar("T")


class Source(Protocol):
    """The bytes of the file to be checked."""

    async def read(self, start: int, length: int) -> bytes:
        """Exactly these bytes. Raises Corrupt or NotFound when they are damaged or gone."""


class Progress(NamedTuple):
    """How many rows have been looked at."""

    rows: int


Event = Progress | wire.Part | wire.Aside | wire.Outcome


class CheckFailed(Exception):
    """The process did not come to an outcome; ``why`` is a clause for people, without any content."""

    def __init__(self, why: str, *, ours: bool, place: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.ours = ours
        self.place = place


class Checker:
    """A process that knows nothing of ours but where Python's modules are, waiting for one file."""

    def __init__(self) -> None:
        known = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG", "LC_ALL") if name in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.dataset.checks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=known,
            bufsize=0,
        )
        for pipe in (self._pipe(self.process.stdin), self._pipe(self.process.stdout)):
            with suppress(OSError, AttributeError):  # the system's own limit, or a system without the call
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    async def send(self, *contents: bytes) -> None:
        """Writes to the process, in a thread since it may take its time. Raises BrokenPipeError when it is gone."""
        await asyncio.to_thread(_write, self._pipe(self.process.stdin), contents)

    async def receive(self) -> tuple[bytes, bytes]:
        """The next message: its kind and content. Raises EOFError when the process is gone."""
        return await asyncio.to_thread(_read_message, self._pipe(self.process.stdout))

    async def end(self) -> int:
        """Ends the process, whatever it does; returns its code."""
        if self.process.poll() is None:
            self.process.kill()
        code = await asyncio.to_thread(self.process.wait)
        for pipe in (self.process.stdin, self.process.stdout):
            self._pipe(pipe).close()
        return code

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> Any:
        assert pipe is not None
        return pipe


async def check(
    checker: Checker,
    task: wire.Task,
    source: Source,
    *,
    max_memory_bytes: int = MAX_MEMORY_BYTES,
    max_silence_s: float = MAX_SILENCE_S,
) -> AsyncGenerator[Event]:
    """Yields how far it is, the parts in order, at last the outcome. Raises CheckFailed, and what ``source`` does."""
    async with _watched(checker, max_memory_bytes) as excess:

        async def within(step: Awaitable[T]) -> T:
            """What the process does next, if it does it in time."""
            try:
                async with asyncio.timeout(max_silence_s):
                    return await step
            except TimeoutError:
                raise CheckFailed(f"its check stood still for {max_silence_s:.0f} s", ours=False) from None
            except (EOFError, BrokenPipeError):
                code = await checker.end()
                raise excess() or CheckFailed(f"its check ended with code {code}", ours=True) from None

        described = wire.encode(task)
        await within(checker.send(wire.COUNT.pack(len(described)), described))
        while True:
            kind, content = await within(checker.receive())
            match kind:
                case wire.READ:
                    start, length = wire.PLACE.unpack(content)
                    await within(checker.send(await source.read(start, min(length, MAX_READ_BYTES))))
                case wire.TICK:
                    yield Progress(*wire.COUNT.unpack(content))
                case wire.PART:
                    yield _part(content)
                case wire.ASIDE:
                    yield wire.Aside(content)
                case wire.DONE:
                    yield wire.decode(content, type=wire.Outcome)
                    return
                case _:
                    broke = wire.decode(content, type=wire.Broke)
                    raise CheckFailed(broke.cause, ours=True, place=f"{broke.file}:{broke.line}")


def _part(content: bytes) -> wire.Part:
    (size,) = wire.COUNT.unpack_from(content)
    start = wire.COUNT.size + size
    return wire.Part(content[start:], wire.decode(content[wire.COUNT.size : start], type=dict[str, int]))


@asynccontextmanager
async def _watched(checker: Checker, most: int) -> AsyncIterator[Callable[[], CheckFailed | None]]:
    """Kills the process when it takes too much memory, what it gives says so afterwards; and in any case at the end."""
    killed: list[CheckFailed] = []

    async def watch() -> None:
        with suppress(psutil.NoSuchProcess):
            watched = psutil.Process(checker.process.pid)
            while watched.memory_info().rss < most:  # noqa: ASYNC110 - nobody tells of memory
                await asyncio.sleep(_LOOK_S)
            limit = f"{most >> 20} MiB"
            killed.append(CheckFailed(f"its check wanted more than {limit} of memory; split the file", ours=False))
            checker.process.kill()

    watching = asyncio.create_task(watch())
    try:
        yield lambda: killed[0] if killed else None
    finally:
        watching.cancel()
        await checker.end()


def _write(pipe: Any, contents: tuple[bytes, ...]) -> None:
    for content in contents:
        with memoryview(content) as view:
            written = 0
            while written < len(view):
                written += pipe.write(view[written:])


def _read_message(pipe: Any) -> tuple[bytes, bytes]:
    kind, size = wire.HEAD.unpack(_read(pipe, wire.HEAD.size))
    return kind, _read(pipe, size)


def _read(pipe: Any, size: int) -> bytes:
    content = bytearray(size)
    with memoryview(content) as view:
        filled = 0
        while filled < size:
            count = pipe.readinto(view[filled:])
            if not count:
                raise EOFError
            filled += count
    return bytes(content)
