"""What every archive promises, and which members none may have; formats are not known here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple, Protocol

from sluice.rows.media import MAX_BYTES
from sluice.rows.paths import is_litter, path_of

#: More is refused: the list of them alone would fill the memory.
MAX_MEMBERS = 200_000
_NESTED = (".zip", ".tar", ".tgz", ".tzst", ".tar.gz", ".tar.zst", ".tar.bz2", ".tar.xz", ".7z", ".rar")


class Member(NamedTuple):
    """A file in an archive: its path with `/` between folders, and the bytes that it says it has."""

    name: str
    size: int


class Archive(Protocol):
    """Files by their paths. `each` is called by one thread at a time, `read` by several."""

    members: list[Member]

    def each(self, names: Sequence[str]) -> Iterator[tuple[str, BinaryIO, int]]:
        """These files in the order of the archive, with their sizes; each is read before the next is asked for.

        Raises DamagedError.
        """

    def read(self, name: str) -> bytes | None:
        """A file of at most 128 MiB; None when it can no more be had. Raises DamagedError, RefusedArchiveError."""


class RefusedArchiveError(ValueError):
    """An archive that is not looked into: as in a Violation of the file."""

    def __init__(self, kind: str, expected: str, found: str, repair: str) -> None:
        super().__init__(kind)
        self.kind = kind
        self.expected = expected
        self.found = found
        self.repair = repair


class Listing:
    """Members as they are found, until one of them may not be."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self._names: set[str] = set()

    def add(self, name: str, size: int, *, plain: bool) -> str:
        """Take a file that is no folder in; returns its name as it is known by. Raises RefusedArchiveError."""
        if not plain:
            repair = "pack the files themselves (tar --dereference)"
            raise RefusedArchiveError("link-in-archive", "files and folders", "a link, device or sparse file", repair)
        known = path_of(name)
        if known is None:
            repair = "pack it again from within its folder"
            raise RefusedArchiveError("unsafe-path", "paths inside the archive", "one that leads out of it", repair)
        if known.lower().endswith(_NESTED) and not is_litter(known):
            repair = "unpack it first, and pack its files"
            raise RefusedArchiveError("nested-archive", "files that are no archives", "an archive inside", repair)
        if known in self._names:
            raise RefusedArchiveError("doubled-member", "each path once", "two of one name", "pack it again")
        if len(self.members) >= MAX_MEMBERS:
            raise too_many()
        self._names.add(known)
        self.members.append(Member(known, size))
        return known


def name_of(raw: bytes) -> str:
    """A name that an archive has in no encoding it tells: UTF-8, or as Windows writes Chinese."""
    for encoding in ("utf-8", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("cp437")


def too_many() -> RefusedArchiveError:
    """An archive of more files than are looked at."""
    return RefusedArchiveError(
        "too-many-members", f"at most {MAX_MEMBERS} files in an archive", "more", "make several archives and append"
    )


def too_large() -> RefusedArchiveError:
    """A member that does not fit into a message."""
    return RefusedArchiveError(
        "asset-too-large", f"at most {MAX_BYTES >> 20} MiB a file", "more", "scale it down, or cut it into several"
    )
