"""The gateway's own record of which version served each request, as JSON lines; knows no content, key or
caller.

A request's `revision` is that of the table it was admitted under, and a `table` line says when a table came
in: so no line after it with an older revision was admitted later, whatever the clocks did.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

_log = logging.getLogger(__name__)


class Served(msgspec.Struct, omit_defaults=True, tag_field="kind", tag="request"):
    """One request that was sent towards an engine. `time` is its admission, epoch seconds."""

    time: float
    request_id: str
    trace_id: str
    endpoint: str
    version: str
    revision: int
    status: int
    duration_ms: float
    ttft_ms: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str | None = None
    instead_of: str | None = None
    """The candidate version that was chosen first and couldn't be reached."""


class TableSwapped(msgspec.Struct, tag_field="kind", tag="table"):
    """From here on every request is admitted under `revision`."""

    time: float
    revision: int


Line = Served | TableSwapped


def prune(folder: Path, now: float, *, max_age_s: float = 30 * 86400.0, max_bytes: int = 1 << 30) -> None:
    """Removes records of workers that are gone: what is older than `max_age_s`, then the oldest beyond
    `max_bytes` in all. `now` is epoch seconds; the name of a record begins with its worker's process id."""
    found = [(path.stat(), path) for path in folder.glob("*.jsonl*")]
    kept_bytes = 0
    for stat, path in sorted(found, key=lambda each: each[0].st_mtime, reverse=True):
        kept_bytes += stat.st_size
        gone = not Path("/proc", path.name.partition("-")[0]).exists()
        if gone and (now - stat.st_mtime > max_age_s or kept_bytes > max_bytes):
            path.unlink(missing_ok=True)
            kept_bytes -= stat.st_size


class ServedLog:
    """Appends to `path`, at most `flush_s` behind; rotates at `rotate_bytes` to `path.1` … `path.<keep>`.

    When the disk refuses, lines wait in memory up to `max_waiting`, then the oldest go; `dropped` counts
    them. One worker process owns one path.
    """

    def __init__(
        self,
        path: Path,
        *,
        flush_s: float = 0.1,
        rotate_bytes: int = 64 * 1024 * 1024,
        keep: int = 8,
        max_waiting: int = 200_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._flush_s = flush_s
        self._rotate_bytes = rotate_bytes
        self._keep = keep
        self._max_waiting = max_waiting
        self.clock = clock
        self.dropped = 0
        self._waiting: list[Line] = []
        self._encoder = msgspec.json.Encoder()
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._writing = asyncio.Lock()
        self._failing = False

    def add(self, line: Line) -> None:
        """Remember a line; never blocks, never raises."""
        self._waiting.append(line)

    def start(self) -> None:
        """Begin flushing in the background of the running loop."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._task = asyncio.get_running_loop().create_task(self._flush_often())

    async def aclose(self) -> None:
        """Flush and stop."""
        self._stopping.set()
        if self._task is not None:
            await self._task
            self._task = None
        await self.flush()

    async def flush(self) -> None:
        """Write what waits; on return it is in the file, or still waiting if the disk refused."""
        async with self._writing:
            if not self._waiting:
                return
            batch, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._write, batch)
                self._failing = False
            except OSError as error:
                self._keep_for_later(batch, error)

    async def _flush_often(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._flush_s):
                    await self._stopping.wait()
            await self.flush()

    def _keep_for_later(self, batch: list[Line], error: OSError) -> None:
        if not self._failing:
            _log.error("served log can't be written: %s; keeping up to %d lines", error.strerror, self._max_waiting)
        self._failing = True
        self._waiting = batch + self._waiting
        surplus = len(self._waiting) - self._max_waiting
        if surplus > 0:
            del self._waiting[:surplus]
            self.dropped += surplus

    def _write(self, batch: list[Line]) -> None:
        data = self._encoder.encode_lines(batch)
        with self._path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                written = 0
                while written < len(data):
                    written += file.write(data[written:]) or 0
            except OSError:
                file.truncate(size)  # no torn line in the middle of the file
                raise
        if size + len(data) >= self._rotate_bytes:
            self._rotate()

    def _rotate(self) -> None:
        for number in range(self._keep - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
