"""The checking process: reads a file through a pipe, gives parts and the outcome through another."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from services.dataset.checks import wire

#: What is asked for at once.
READ_BYTES = 4 << 20
#: How often is told how far it is.
TICK_S = 0.2


class Wire:
    """The process's end of the two pipes."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._whole = threading.RLock()  # Arrow reads in threads of its own

    def task(self) -> wire.Task:
        """The first thing that comes."""
        (size,) = wire.COUNT.unpack(self._take(wire.COUNT.size))
        return wire.decode(self._take(size), type=wire.Task)

    def send(self, kind: bytes, *content: bytes) -> None:
        """Sends one message."""
        with self._whole:
            self._outgoing.write(wire.HEAD.pack(kind, sum(map(len, content))))
            for each in content:
                self._outgoing.write(each)
            self._outgoing.flush()

    def read(self, start: int, length: int) -> bytes:
        """Bytes of the file; it is the service that decrypts them."""
        with self._whole:
            self.send(wire.READ, wire.PLACE.pack(start, length))
            return self._take(length)

    def _take(self, size: int) -> bytes:
        content = self._incoming.read(size)
        if len(content) != size:  # the service is gone, and nobody waits for what we find
            os._exit(1)
        return content


class RemoteFile(io.RawIOBase):
    """A file of which the service holds the bytes."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read = read
        self._size = size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self._size - self._place, READ_BYTES))
        buffer[:length] = self._read(self._place, length) if length else b""
        self._place += length
        return length


def check(task: wire.Task, file: BinaryIO, send: Callable[..., None]) -> None:
    """Checks one file and sends its parts, then the outcome."""
    from sluice.rows.checking import Rules
    from sluice.rows.convert import convert
    from sluice.rows.parts import Part

    def give(part: Part) -> None:
        head = wire.encode(part.split_rows)
        send(wire.PART, wire.COUNT.pack(len(head)), head, part.content)

    told = 0.0

    def tick(rows: int) -> None:
        nonlocal told
        if (now := time.monotonic()) - told > TICK_S:
            told = now
            send(wire.TICK, wire.COUNT.pack(rows))

    def put_aside(lines: bytes) -> None:
        send(wire.ASIDE, lines)

    rules = Rules(task.row_schema, task.columns, task.fix, task.quarantine)
    found = convert(file, task.file_name, rules, give, tick, put_aside)
    counts, fixed = dict(found.counts), dict(found.fixed)
    outcome = wire.Outcome(found.accepted, found.row_count, found.violations, counts, found.put_aside, fixed)
    send(wire.DONE, wire.encode(outcome))


def main() -> None:
    """Runs until the outcome is sent, or the service is gone."""
    outgoing = os.fdopen(os.dup(1), "wb", buffering=1 << 20)
    os.dup2(2, 1)  # whatever a library prints is no message of ours
    wires = Wire(os.fdopen(0, "rb", buffering=1 << 20), outgoing)
    import sluice.rows.convert  # noqa: F401 - what takes longest, while the task is on its way

    task = wires.task()
    file = io.BufferedReader(RemoteFile(wires.read, task.size), READ_BYTES)
    try:
        check(task, cast(BinaryIO, file), wires.send)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        wires.send(wire.BROKE, wire.encode(wire.Broke(type(error).__name__, place.filename, place.lineno or 0)))
        sys.exit(1)


if __name__ == "__main__":
    main()
