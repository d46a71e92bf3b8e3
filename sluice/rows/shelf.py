"""Assets by the names that rows give them: found, decoded once in threads, and kept by somebody else.

Where bytes come from and go to is the matter of a keeper.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import posixpath
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from difflib import get_close_matches
from typing import NamedTuple

from sluice.rows.assets import DIGEST, Trouble
from sluice.rows.formats.archives.contract import RefusedArchiveError
from sluice.rows.formats.compression import DamagedError
from sluice.rows.identities import Treat, as_it_is
from sluice.rows.media import Media, UndecodableError, look
from sluice.rows.media.looking import DICOM
from sluice.rows.paths import is_litter, may_be_asset, path_of

#: Threads that decode; Pillow gives the interpreter's lock back while it works.
DECODERS = min(4, os.cpu_count() or 1)
#: A file of more is in memory alone; the threads together hold less than a checking process may.
HEAVY_BYTES = 32 << 20
_heavy = threading.Lock()
#: Names that are proposed in place of others, and how many are looked through for each.
MAX_PROPOSALS, MAX_NEIGHBORS = 100, 2000
_NETWORK = ("http://", "https://", "s3://", "oss://", "gs://", "hdfs://")


class Settled(NamedTuple):
    """An asset that can be decoded: its digest `sha256:<hex>`, and whether it is an `image` or an `audio`."""

    digest: str
    kind: str


#: Takes bytes that were decoded to where they are kept.
Keep = Callable[[str, Media, bytes], None]
#: Decodes bytes and has them kept. Raises Trouble, UndecodableError.
Settle = Callable[[bytes], Settled]
#: The asset of a path that is there. Raises Trouble, UndecodableError, DamagedError, RefusedArchiveError.
Fetch = Callable[[str], Settled]


def settled(data: bytes, keep: Keep, treat: Treat = as_it_is) -> Settled:
    """Decode bytes, and keep what `treat` makes of them if that goes well. Raises UndecodableError, Trouble."""
    media = look(data)
    treated = treat(data, media)
    if treated is not data and media.type != DICOM:  # it may be of another type now, and another way round
        media = look(treated)
    digest = f"sha256:{hashlib.sha256(treated).hexdigest()}"
    keep(digest, media, treated)
    return Settled(digest, media.kind)


def turn(size: int) -> AbstractContextManager[object]:
    """What is held while a file of so many bytes is read and decoded: large ones come one after the other."""
    return _heavy if size > HEAVY_BYTES else nullcontext()


def guarded(work: Callable[[], Settled]) -> Settled | Trouble:
    """What the work gives, or why it gives nothing."""
    try:
        return work()
    except Trouble as trouble:
        return trouble
    except (UndecodableError, RefusedArchiveError) as error:
        return Trouble(error.kind, error.expected, error.found, error.repair)
    except DamagedError:
        return Trouble("undecodable-image", "a whole file", "a damaged one in the archive", "pack it again")


class Shelf:
    """Assets by their paths.

    `paths` are all there are, `fetch` settles one of them, `settle` what stands in rows themselves. `whence` says
    to people where files are looked for.
    """

    def __init__(self, paths: Iterable[str], fetch: Fetch, settle: Settle, whence: str) -> None:
        self._paths = {known: path for path in paths if (known := path_of(path)) and not is_litter(known)}
        self._fetch = fetch
        self._settle = settle
        self._whence = whence
        self._found: dict[str, Settled | Trouble] = {}
        self._taken: dict[str, Settled | Trouble] = {}
        self._pool = ThreadPoolExecutor(DECODERS, "decode")
        self._lock = threading.Lock()
        self._proposed = 0
        self._by_file: dict[str, list[str]] = {}
        self._by_folder: dict[str, list[str]] = {}

    def take(self, contents: Sequence[bytes | None]) -> list[str | None]:
        """Settle bytes that stand in rows; returns the name of each, their digest, by which it is found again."""

        def one(content: bytes | None) -> str | None:
            if not content:
                return None
            name = f"sha256:{hashlib.sha256(content).hexdigest()}"
            if name not in self._taken:
                self._taken[name] = guarded(lambda: self._settle(content))
            return name

        return list(self._pool.map(one, contents))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def at(self, base: str, *, named: bool = False) -> _View:
        """The same, for rows whose names start in the folder `base`.

        `named` are files of which nobody wrote a row: what is wrong with one says its name.
        """
        return _View(self, base, named=named)

    def note(self, found: Mapping[str, Settled | Trouble]) -> None:
        """Put down what paths lead to, so that nobody asks for it."""
        self._found.update(found)

    def all_of(self, names: Sequence[tuple[str, str]], base: str) -> list[Settled | Trouble]:
        """What each name leads to, in threads."""
        return list(self._pool.map(lambda named: self._one(named[0], named[1], base), names))

    def within(self, folder: str, base: str) -> list[str]:
        """The paths of images right in a folder, in order."""
        self._index()
        for known in self._candidates(folder, base):
            if found := self._by_folder.get(known):
                return [path for path in sorted(found) if may_be_asset(path)]
        return []

    def _one(self, kind: str, name: str, base: str) -> Settled | Trouble:
        if name.startswith("data:"):
            return _of_kind(kind, guarded(lambda: self._settle(_inline(name))))
        if name in self._taken:
            return _of_kind(kind, self._taken[name])
        path = next((self._paths[known] for known in self._candidates(name, base) if known in self._paths), None)
        if path is None:
            return self._missing(kind, name, base)
        found = self._found.get(path)
        if found is None:
            found = self._found[path] = guarded(lambda: self._fetch(path))
        return _of_kind(kind, found)

    def _candidates(self, name: str, base: str) -> list[str]:
        names = [posixpath.join(base, name), name] if base else [name]
        return [known for each in names if (known := path_of(each))]

    def _missing(self, kind: str, name: str, base: str) -> Trouble:
        if name.startswith(_NETWORK):
            repair = "download it, put it beside the rows, and give its path"
            return Trouble("remote-asset", "a file that comes with the rows", "an address in the network", repair)
        what = "an image" if kind == "image" else "a sound"
        if DIGEST.fullmatch(name):
            return Trouble("missing-asset", f"{what} that came with the file", "none of that digest", "send it along")
        if not self._paths:
            repair = "send it along: `--assets FOLDER`, or one archive of rows and files"
            return Trouble("missing-asset", f"{what} that comes with the rows", "rows alone", repair)
        near = self._near(name, base)
        repair = f"`{near}`?" if near else f"put it into {self._whence}, or drop the row"
        return Trouble("missing-asset", f"the path of {what} in {self._whence}", "no such file", repair)

    def _near(self, name: str, base: str) -> str:
        """A path that is meant, perhaps: the same name elsewhere or in other letters, or a name alike nearby."""
        with self._lock:
            self._proposed += 1
        if self._proposed > MAX_PROPOSALS:
            return ""
        self._index()
        file = posixpath.basename(name.replace("\\", "/"))
        same = self._by_file.get(file.lower(), [])
        if len(same) == 1:
            return self._shown(same[0], base)
        folder = posixpath.dirname((self._candidates(name, base) or [""])[0])
        neighbors = self._by_folder.get(folder) or (list(self._paths) if len(self._paths) <= MAX_NEIGHBORS else [])
        by_name = {posixpath.basename(path).lower(): path for path in neighbors[:MAX_NEIGHBORS]}
        close = get_close_matches(file.lower(), by_name, 1, 0.75)
        return self._shown(by_name[close[0]], base) if close else ""

    @staticmethod
    def _shown(path: str, base: str) -> str:
        return path.removeprefix(f"{base}/") if base else path

    def _index(self) -> None:
        with self._lock:
            if self._by_folder:
                return
            for path in self._paths:
                self._by_file.setdefault(posixpath.basename(path).lower(), []).append(path)
                self._by_folder.setdefault(posixpath.dirname(path), []).append(path)


class _View:
    """A shelf as the rows of one file see it; see `sluice.rows.assets.Shelf`."""

    def __init__(self, shelf: Shelf, base: str, *, named: bool) -> None:
        self._shelf = shelf
        self._base = base
        self._named = named

    def find(self, names: Sequence[tuple[str, str]]) -> list[str | Trouble]:
        found = self._shelf.all_of(names, self._base)
        asked = zip(names, found, strict=True)
        return [each.digest if isinstance(each, Settled) else self._said(each, name) for (_, name), each in asked]

    def _said(self, trouble: Trouble, name: str) -> Trouble:
        if not self._named:
            return trouble
        return Trouble(trouble.kind, trouble.expected, f"`{name}`: {trouble.found}", trouble.repair)

    def frames(self, name: str) -> list[str]:
        return self._shelf.within(name, self._base)

    def take(self, contents: Sequence[bytes | None]) -> list[str | None]:
        return self._shelf.take(contents)


def _of_kind(kind: str, found: Settled | Trouble) -> Settled | Trouble:
    if isinstance(found, Settled) and found.kind != kind:
        return Trouble("wrong-asset-kind", f"an {kind} file", f"an {found.kind} file", "name it in another field")
    return found


def _inline(url: str) -> bytes:
    """The bytes in a `data:` URL (RFC 2397), which are in base 64."""
    head, _, content = url.partition(",")
    try:
        if head.endswith(";base64"):
            return base64.b64decode(content, validate=True)
    except binascii.Error:
        head = ""
    raise Trouble("undecodable-image", "data:image/png;base64,…", "another URL", "write the bytes in base 64")
