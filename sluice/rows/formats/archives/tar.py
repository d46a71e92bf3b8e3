"""Tar archives (POSIX.1-2001 pax, GNU), read here and there, or from the front where they are compressed."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, Self, cast

from sluice.rows.formats.archives.contract import Listing, RefusedArchiveError, name_of, too_large
from sluice.rows.formats.compression import BombError, DamagedError, unpacked
from sluice.rows.media import MAX_BYTES
from sluice.rows.paths import is_litter, may_be_asset
from sluice.rows.streams import Stream

#: What may be said about a member, such as its long name; tarfile holds it whole.
MAX_ABOUT_BYTES = 1 << 20
_ABOUT = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_BUFFER_BYTES = 256 << 10


class _Info(tarfile.TarInfo):
    """A header: one that is damaged ends an archive with an error, and not in silence as tarfile has it."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf.strip(b"\0"):
                raise DamagedError("tar") from error
            raise  # the end, of zeros or of the file
        if info.size < 0:  # tarfile would read all there is, or the same header again
            raise DamagedError("tar")
        if info.type in _ABOUT and info.size > MAX_ABOUT_BYTES:
            raise RefusedArchiveError("unsafe-path", "names of files", "one of more than a megabyte", "pack it again")
        return info


class PlainTar:
    """See the contract."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._places: dict[str, tuple[int, int]] = {}
        listing, size = Listing(), file.seek(0, io.SEEK_END)
        file.seek(0)
        with _reading(file, "r:") as tar:
            for info, name in _files(tar, listing):
                if info.offset_data + info.size > size:
                    raise DamagedError("tar")
                self._places[name] = (info.offset_data, info.size)
        self.members = listing.members

    def each(self, names: Sequence[str]) -> Iterator[tuple[str, BinaryIO, int]]:
        wanted = set(names)
        for name, size in self.members:
            if name in wanted:
                window = _Window(self._at, *self._places[name])
                yield name, cast(BinaryIO, io.BufferedReader(window, _BUFFER_BYTES)), size

    def read(self, name: str) -> bytes | None:
        start, size = self._places[name]
        if size > MAX_BYTES:
            raise too_large()
        return self._at(start, size)

    def _at(self, start: int, size: int) -> bytes:
        with self._lock:
            self._file.seek(start)
            return self._file.read(size)


class StreamedTar:
    """A compressed one, which is unpacked once when it is opened and once more for the rows."""

    def __init__(self, file: BinaryIO, compression: str, meet: Callable[[str, bytes], None]) -> None:
        self._file = file
        self._compression = compression
        listing = Listing()
        with self._unpacked() as tar:
            for info, name in _files(tar, listing):
                if may_be_asset(name) and not is_litter(name):
                    if info.size > MAX_BYTES:
                        raise too_large()
                    meet(name, _content(tar, info).read())
        self.members = listing.members

    def each(self, names: Sequence[str]) -> Iterator[tuple[str, BinaryIO, int]]:
        wanted = set(names)
        with self._unpacked() as tar:
            for info, name in _files(tar, Listing()):
                if name in wanted:
                    yield name, cast(BinaryIO, _content(tar, info)), info.size

    def read(self, name: str) -> bytes | None:
        return None

    @contextmanager
    def _unpacked(self) -> Iterator[tarfile.TarFile]:
        stream = io.BufferedReader(Stream(unpacked(self._file, self._compression)), _BUFFER_BYTES)
        with _reading(cast(BinaryIO, stream), "r|") as tar:
            yield tar


class _Window(io.RawIOBase):
    """A stretch of a file that others read too."""

    def __init__(self, at: Callable[[int, int], bytes], start: int, size: int) -> None:
        self._at = at
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
        length = max(0, min(len(buffer), self._size - self._place))
        content = self._at(self._start + self._place, length) if length else b""
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)


@contextmanager
def _reading(file: BinaryIO, mode: str) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(fileobj=file, mode=mode, tarinfo=_Info, errorlevel=2) as tar:  # type: ignore[call-overload]
            yield tar
    except (DamagedError, BombError, RefusedArchiveError):
        raise
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
        raise DamagedError("tar") from error


def _files(tar: tarfile.TarFile, listing: Listing) -> Iterator[tuple[tarfile.TarInfo, str]]:
    for info in tar:
        tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
        if not info.isdir():
            name = name_of(info.name.encode("utf-8", "surrogateescape"))
            yield info, listing.add(name, info.size, plain=info.isreg() and not info.issparse())


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(info)
    if file is None:
        raise DamagedError("tar")
    return file
