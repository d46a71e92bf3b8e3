"""A checking process as the service sees it: two pipes, and memory to be watched; what is said is not known here."""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import suppress
from typing import IO, Any, Protocol

import psutil

from services.dataset.checks import wire

_LOOK_S = 0.25
#: What a pipe holds, where the system lets us say so; the usual 64 KiB make a hop of every piece.
_PIPE_BYTES = 1 << 20
#: Arrow's memory from the C library, which keeps what was freed for the next frame: else a short-lived process spends
#: a fifth of its time on pages it has just given back. And no threads for linear algebra, which nobody asks for.
_MEMORY = {
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 31),
    "MALLOC_TOP_PAD_": str(16 << 20),
    "MALLOC_ARENA_MAX": "2",
}


def environ() -> dict[str, str]:
    """All that a checking process learns of our environment: where Python's modules are, and the language."""
    known = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG", "LC_ALL") if name in os.environ}
    return known | _MEMORY


class Process(Protocol):
    """What is needed of a process; what ``Nursery.fork`` gives has it, and ``subprocess.Popen``."""

    @property
    def pid(self) -> int: ...
    @property
    def stdin(self) -> IO[bytes] | None: ...
    @property
    def stdout(self) -> IO[bytes] | None: ...
    def poll(self) -> int | None: ...
    def kill(self) -> None: ...
    def wait(self) -> int: ...


class Checker:
    """A process that knows nothing of ours, waiting for one task."""

    def __init__(self, process: Process) -> None:
        self.process = process
        for pipe in (self._pipe(self.process.stdin), self._pipe(self.process.stdout)):
            with suppress(OSError, AttributeError):  # the system's own limit, or a system without the call
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    async def send(self, *contents: bytes) -> None:
        """Writes to the process, in a thread since it may take its time. Raises BrokenPipeError when it is gone."""
        await asyncio.to_thread(_write, self._pipe(self.process.stdin), contents)

    async def receive(self) -> tuple[bytes, bytes]:
        """The next message: its kind and content. Raises EOFError when the process is gone."""
        return await asyncio.to_thread(_read_message, self._pipe(self.process.stdout))

    async def outgrow(self, most: int) -> None:
        """Returns when the process holds that many bytes of memory, or is gone."""
        with suppress(psutil.NoSuchProcess):
            watched = psutil.Process(await asyncio.to_thread(lambda: self.process.pid))
            while watched.memory_info().rss < most:  # noqa: ASYNC110 - nobody tells of memory
                await asyncio.sleep(_LOOK_S)

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
