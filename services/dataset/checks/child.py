"""The checking process's end of the two pipes, and files of which the service holds the bytes."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from services.dataset.checks import wire

if TYPE_CHECKING:
    from sluice.rows.parts import Part

#: What is asked for at most at once.
READ_BYTES = 4 << 20
#: What is asked for at least at once of a part of which some columns are wanted: its footer, and not their neighbors.
PART_READ_BYTES = 64 << 10
#: How often is told how far it is.
TICK_S = 0.2


class Wire:
    """The process's end of the two pipes."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._whole = threading.RLock()  # Arrow reads in threads of its own
        self._told = 0.0

    def task(self) -> wire.AnyTask:
        """The first thing that comes."""
        (size,) = wire.COUNT.unpack(self._take(wire.COUNT.size))
        given: wire.AnyTask = wire.decode(self._take(size), type=wire.AnyTask)
        return given

    def job(self) -> tuple[wire.Job, bytes]:
        """The next image that is wanted as PNG."""
        job = wire.decode(self._take(self._size()), type=wire.Job)
        return job, self._take(job.size)

    def send(self, kind: bytes, *content: bytes) -> None:
        """Sends one message."""
        with self._whole:
            self._outgoing.write(wire.HEAD.pack(kind, sum(map(len, content))))
            for each in content:
                self._outgoing.write(each)
            self._outgoing.flush()

    def tick(self, rows: int) -> None:
        """Tells now and then how many rows have been looked at."""
        if (now := time.monotonic()) - self._told > TICK_S:
            self._told = now
            self.send(wire.TICK, wire.COUNT.pack(rows))

    def part(self, part: Part) -> None:
        """Sends a part."""
        head = wire.encode(wire.PartHead(part.split_rows, part.assets))
        self.send(wire.PART, wire.COUNT.pack(len(head)), head, part.content)

    def asset(self, head: wire.AssetHead, content: bytes = b"") -> None:
        """Sends an asset that can be decoded, with its bytes unless the service has them."""
        described = wire.encode(head)
        self.send(wire.ASSET, wire.COUNT.pack(len(described)), described, content)

    def beside(self) -> list[wire.Named]:
        """The assets that came beside the file, by path."""
        found: list[wire.Named] = []
        while True:
            with self._whole:
                self.send(wire.LIST, (found[-1].path if found else "").encode())
                some = wire.decode(self._take(self._size()), type=list[wire.Named])
            if not some:
                return found
            found += some

    def fetch(self, digest: str) -> bytes | None:
        """The bytes of an asset beside the file; None when they are gone."""
        with self._whole:
            self.send(wire.FETCH, digest.encode())
            size = self._size()
            return None if size == wire.GONE else self._take(size)

    def _size(self) -> int:
        size: int = wire.COUNT.unpack(self._take(wire.COUNT.size))[0]
        return size

    def read(self, start: int, length: int) -> bytes:
        """Bytes of what the task is about; it is the service that decrypts them."""
        with self._whole:
            self.send(wire.READ, wire.PLACE.pack(start, length))
            return self._take(length)

    def file(self, start: int, size: int, buffer_bytes: int = READ_BYTES) -> io.BufferedReader:
        """So many bytes as a file; at least ``buffer_bytes`` of them are asked for at once."""
        return io.BufferedReader(RemoteFile(self.read, start, size), buffer_bytes)

    def parts(
        self, parts: Sequence[wire.Stretch], begin: int = 0, buffer_bytes: int = PART_READ_BYTES
    ) -> Iterator[tuple[wire.Stretch, io.BufferedReader]]:
        """Stored parts as files; their bytes come one after the other, from ``begin`` on."""
        for part in parts:
            yield part, self.file(begin, part.size, buffer_bytes)
            begin += part.size

    def _take(self, size: int) -> bytes:
        content = self._incoming.read(size)
        if len(content) != size:  # the service is gone, and nobody waits for what we find
            os._exit(1)
        return content


class RemoteFile(io.RawIOBase):
    """A file of which the service holds the bytes."""

    def __init__(self, read: Callable[[int, int], bytes], start: int, size: int) -> None:
        self._read = read
        self._start = start
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
        buffer[:length] = self._read(self._start + self._place, length) if length else b""
        self._place += length
        return length
