"""A file, or the files in an archive, as stacks of rows that are read in the same way; no row is judged."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from sluice.rows.assets import Shelf as AssetShelf
from sluice.rows.assets import Trouble
from sluice.rows.formats import read_frames, read_member
from sluice.rows.formats.archives import Archive, RefusedArchiveError, open_archive
from sluice.rows.formats.archives.layouts import sources
from sluice.rows.formats.compression import MAX_RATIO, BombError, DamagedError
from sluice.rows.frames import Cut, wrong_file
from sluice.rows.identities import Treat, Whose, as_it_is, as_it_says
from sluice.rows.names import ARCHIVES, check_file_name
from sluice.rows.shelf import DECODERS, HEAVY_BYTES, Fetch, Keep, Settle, Settled, Shelf, guarded, settled, turn


def _nowhere(path: str) -> Settled:
    raise KeyError(path)


def _drop(*_: object) -> None:
    """Where assets are looked at and not kept."""


@dataclass(frozen=True)
class Beside:
    """Assets beside the rows, by their paths, and where those go that are found in an archive or in rows.

    `treat` says what is kept in place of the bytes that come, `whose` what the patients of DICOM files are called.
    """

    paths: Iterable[str] = ()
    fetch: Fetch = _nowhere
    keep: Keep = _drop
    whence: str = "the folder of assets"
    treat: Treat = as_it_is
    whose: Whose = as_it_says

    def settle(self, data: bytes) -> Settled:
        """Decode bytes, and keep what is made of them. Raises UndecodableError, Trouble."""
        return settled(data, self.keep, self.treat)


#: Rows that came without anything beside them.
ALONE = Beside()


@dataclass(frozen=True)
class Stack:
    """Rows of one file: how they are cut, where their assets are, and what their columns mean unless people say."""

    cuts: Iterator[Cut]
    shelf: AssetShelf
    file: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def stacks(
    file: BinaryIO, file_name: str, row_schema: str, beside: Beside, *, fix: bool = False
) -> Iterator[Iterator[Stack]]:
    """The rows of a file, each stack read before the next is asked for; their shelves are open as long as this is.

    Raises UnknownFormatError before reading.
    """
    form, compression = check_file_name(file_name)
    with ExitStack() as opened:
        if form in ARCHIVES:
            yield _of_archive(file, form, compression, row_schema, beside, opened, fix)
        else:
            shelf = opened.enter_context(closing(Shelf(beside.paths, beside.fetch, beside.settle, beside.whence)))
            named = {"file_name": "image"} if file_name.partition(".")[0] == "metadata" else {}
            yield iter([Stack(read_frames(file, file_name, fix=fix), shelf.at(""), columns=named)])


def _of_archive(
    file: BinaryIO, form: str, compression: str, row_schema: str, beside: Beside, opened: ExitStack, fix: bool
) -> Iterator[Stack]:
    met = opened.enter_context(closing(_Met(beside.settle)))
    shelf = Shelf((), _nowhere, beside.settle, "the archive")
    try:
        archive = open_archive(file, form, compression, met)
        paths = (each.name for each in archive.members)
        shelf = Shelf(paths, _reading(archive, beside.settle), beside.settle, "the archive")
        opened.enter_context(closing(shelf))
        shelf.note(met.all())
        for source in sources(archive, row_schema, beside.whose):
            name = source.name.rpartition("/")[2] or "rows.jsonl"
            cuts = read_member(source.file, name, source.size, fix=fix)
            yield Stack(_whole(cuts), shelf.at(source.base, named=not source.name), source.name, source.columns)
    except (RefusedArchiveError, DamagedError, BombError) as error:
        yield Stack(iter([_wrong(error, form)]), shelf.at(""))


def _reading(archive: Archive, settle: Settle) -> Fetch:
    sizes = {member.name: member.size for member in archive.members}

    def fetch(path: str) -> Settled:
        with turn(sizes[path]):
            data = archive.read(path)
            if data is None:
                repair = "name another file"
                raise Trouble("undecodable-image", "an image, or a sound", "a file of another kind", repair)
            return settle(data)

    return fetch


def _whole(cuts: Iterator[Cut]) -> Iterator[Cut]:
    """The rows of a member; what is wrong with the archive is said where they end."""
    try:
        yield from cuts
    except (RefusedArchiveError, DamagedError, BombError) as error:
        yield _wrong(error, "archive")


def _wrong(error: RefusedArchiveError | DamagedError | BombError, form: str) -> Cut:
    if isinstance(error, RefusedArchiveError):
        return wrong_file(error.kind, error.expected, error.found, error.repair)
    if isinstance(error, BombError):
        expected = f"at most {MAX_RATIO} times the size of the archive"
        return wrong_file("file-too-large", expected, "more", "make several archives and append")
    return wrong_file("damaged-file", f"a whole .{form} file", "a damaged or cut one", "pack it again")


class _Met:
    """Members that come by while an archive is unpacked: decoded in threads, of which few wait."""

    def __init__(self, settle: Settle) -> None:
        self._settled = settle
        self._found: dict[str, Settled | Trouble] = {}
        self._pool = ThreadPoolExecutor(DECODERS, "decode")
        self._room = threading.Semaphore(DECODERS + 1)

    def __call__(self, name: str, data: bytes) -> None:
        self._room.acquire()
        if len(data) > HEAVY_BYTES:
            self._settle(name, data)
        else:
            self._pool.submit(self._settle, name, data)

    def all(self) -> dict[str, Settled | Trouble]:
        """What came of each, by name."""
        self.close()
        return self._found

    def close(self) -> None:
        """End the threads when they are done."""
        self._pool.shutdown()

    def _settle(self, name: str, data: bytes) -> None:
        try:
            self._found[name] = guarded(lambda: self._settled(data))
        finally:
            self._room.release()
