"""Zip archives (PKWARE APPNOTE 6.3), read here and there."""

from __future__ import annotations

import io
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, BinaryIO, cast

from sluice.rows.formats.archives.contract import (
    MAX_MEMBERS,
    Listing,
    RefusedArchiveError,
    name_of,
    too_large,
    too_many,
)
from sluice.rows.formats.compression import ALWAYS_ALLOWED_BYTES, MAX_RATIO, BombError, DamagedError
from sluice.rows.media import MAX_BYTES
from sluice.rows.paths import MAX_PATH

_END, _END64, _LOCATOR = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_ENTRY = b"PK\1\2"
_ENTRY_BYTES = 46
_UTF8 = 0x800
_FAULTS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error, OSError, ValueError)


class Zip:
    """See the contract."""

    def __init__(self, file: BinaryIO) -> None:
        size = file.seek(0, io.SEEK_END)
        _check_directory(file, size)
        listing = Listing()
        self._infos: dict[str, zipfile.ZipInfo] = {}
        try:
            self._zip = zipfile.ZipFile(file)
        except (*_FAULTS, NotImplementedError) as error:
            raise DamagedError("zip") from error
        for info in self._zip.infolist():
            mode = info.external_attr >> 16
            if info.flag_bits & 1:
                repair = "pack it without a password: it is encrypted here"
                raise RefusedArchiveError("encrypted-archive", "files without a password", "encrypted ones", repair)
            if not info.is_dir():
                plain = not stat.S_IFMT(mode) or stat.S_ISREG(mode)
                self._infos[listing.add(_name(info), info.file_size, plain=plain)] = info
        self.members = listing.members
        if sum(member.size for member in self.members) > max(ALWAYS_ALLOWED_BYTES, MAX_RATIO * size):
            raise BombError("zip")

    def each(self, names: Sequence[str]) -> Iterator[tuple[str, BinaryIO, int]]:
        wanted = set(names)
        for name, size in self.members:
            if name in wanted:
                with self._open(name) as file:
                    yield name, cast(BinaryIO, _Sound(file)), size

    def read(self, name: str) -> bytes | None:
        size = self._infos[name].file_size
        if size > MAX_BYTES:
            raise too_large()
        with self._open(name) as file:
            content = _Sound(file).read(size + 1)
        if len(content) != size:
            raise DamagedError("zip")
        return content

    def _open(self, name: str) -> IO[bytes]:
        try:
            return self._zip.open(self._infos[name])
        except NotImplementedError:
            expected = "files that are stored, or compressed by deflate, bzip2 or LZMA"
            raise RefusedArchiveError("unsupported-compression", expected, "another way", "pack it again") from None
        except _FAULTS as error:
            raise DamagedError("zip") from error


class _Sound(io.RawIOBase):
    """A member whose faults are those of a damaged file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except _FAULTS as error:
            raise DamagedError("zip") from error


def _name(info: zipfile.ZipInfo) -> str:
    """The name of a member; without its flag of UTF-8 it is in whatever the system had (APPNOTE, appendix D)."""
    if info.flag_bits & _UTF8 or info.filename.isascii():
        return info.filename
    return name_of(info.filename.encode("cp437", "replace"))


def _check_directory(file: BinaryIO, size: int) -> None:
    """Look at the directory before `zipfile` holds it whole: how many entries it has, not how many it says.

    Source: APPNOTE 4.3.12, 4.3.14 to 4.3.16. Raises RefusedArchiveError, DamagedError.
    """
    start = max(0, size - (1 << 16) - 22)
    file.seek(start)
    tail = file.read(size - start)
    place = tail.rfind(_END)
    if place < 0 or len(tail) < place + 22:
        raise DamagedError("zip")
    (length,) = struct.unpack_from("<L", tail, place + 12)
    end = start + place
    if place >= 20 and tail[place - 20 : place - 16] == _LOCATOR:
        (record,) = struct.unpack_from("<Q", tail, place - 12)
        end = min(record, size)
        file.seek(end)
        head = file.read(56)
        if len(head) < 56 or not head.startswith(_END64):
            raise DamagedError("zip")
        (length,) = struct.unpack_from("<Q", head, 40)
    if length > end:
        raise DamagedError("zip")
    if length > MAX_MEMBERS * (_ENTRY_BYTES + MAX_PATH):
        raise too_many()
    file.seek(end - length)  # zipfile, too, goes by its end: something may stand before the archive
    directory = file.read(length)
    count, at = 0, 0
    while directory.startswith(_ENTRY, at) and at + _ENTRY_BYTES <= len(directory):
        at += _ENTRY_BYTES + sum(struct.unpack_from("<HHH", directory, at + 28))
        count += 1
        if count > MAX_MEMBERS:
            raise too_many()
