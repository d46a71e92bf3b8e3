"""The key-encryption key in a file of its own, a line a generation; it never sees a blob.

A line is the key in base64 and, once there was more than one, since when it wraps, or `waiting`. The last that is not
waiting wraps. The file is replaced as a whole, and every process that holds it looks before each use whether it was.
"""

import fcntl
import hashlib
import os
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)

from kit.blobs.kek import Generation, UnknownKeyError, UnwrapError
from kit.blobs.local import keep_owner, sync_folder
from kit.telemetry import get_log

log = get_log(__name__)
_KEY_BYTES = 32
_WAITING = "waiting"


@dataclass(frozen=True)
class _Key:
    """One line of the file. Its text form, by repr or str, never holds the key."""

    key: bytes
    since: datetime | None = None
    waiting: bool = False

    @property
    def key_id(self) -> str:
        return hashlib.sha256(b"sluice key id\0" + self.key).hexdigest()[:16]

    @property
    def line(self) -> str:
        stated = _WAITING if self.waiting else self.since.isoformat() if self.since else ""
        return f"{b64encode(self.key).decode()} {stated}".rstrip() + "\n"

    def __repr__(self) -> str:
        return f"_Key({self.key_id})"


class FileKek:
    """A key-encryption key and its generations: AES-256 key wrap with padding (RFC 5649).

    One that is made of bytes alone has no file, and neither changes nor can be changed.
    """

    def __init__(self, key: bytes, path: Path | None = None) -> None:
        self._keys = [_checked(_Key(key))]
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._readable = True
        self._loading = threading.Lock()

    @classmethod
    def create(cls, path: Path, *, home: Path) -> Self:
        """Write a new key (0600) outside `home`, where the blobs are; FileExistsError if there is one."""
        _refuse_inside(path, home)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = _Key(os.urandom(_KEY_BYTES))
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(made.line)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
        return cls(made.key, path)

    @classmethod
    def load(cls, path: Path, *, home: Path) -> Self:
        """Read the key; ValueError inside `home`, PermissionError when others may read it."""
        _refuse_inside(path, home)
        found = cls(_read(path)[0].key, path)
        found._refresh()
        return found

    @property
    def key_id(self) -> str:
        return _wrapping(self._fresh()).key_id

    def wrap(self, data_key: bytes) -> tuple[str, bytes]:
        current = _wrapping(self._fresh())
        return current.key_id, aes_key_wrap_with_padding(current.key, data_key)

    def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        keys = self._fresh()
        # An id that no key has may be a damaged one: what it stands beside tells by itself which key wrapped it.
        named = [each for each in keys if each.key_id == key_id]
        for each in named or keys:
            try:
                return aes_key_unwrap_with_padding(each.key, wrapped)
            except (InvalidUnwrap, ValueError):
                continue
        if named:
            raise UnwrapError("the wrapped data key does not belong to this key-encryption key")
        raise UnknownKeyError(key_id)

    def generations(self) -> list[Generation]:
        """All that are held, the oldest first, the one that waits last."""
        keys = self._fresh()
        current, ends = _wrapping(keys), [each.since for each in keys[1:]]
        return [
            Generation(each.key_id, each.since, end, wraps=each is current)
            for each, end in zip(keys, [*ends, None], strict=True)
        ]

    def prepare(self) -> str:
        """Makes a generation that unwraps and does not wrap yet, if none is waiting; returns the one that waits."""

        def change(keys: list[_Key]) -> list[_Key]:
            return keys if keys[-1].waiting else [*keys, _Key(os.urandom(_KEY_BYTES), waiting=True)]

        return self._change(change)[-1].key_id

    def rotate(self) -> str:
        """Lets the generation that waits wrap from now on, or a new one; returns it."""

        def change(keys: list[_Key]) -> list[_Key]:
            now = datetime.now(UTC).replace(microsecond=0)
            if keys[-1].waiting:
                return [*keys[:-1], replace(keys[-1], since=now, waiting=False)]
            return [*keys, _Key(os.urandom(_KEY_BYTES), now)]

        return self._change(change)[-1].key_id

    def retire(self, key_id: str) -> None:
        """Destroys a generation. Raises ValueError for the one that wraps, UnknownKeyError when it is not held."""

        def change(keys: list[_Key]) -> list[_Key]:
            if _wrapping(keys).key_id == key_id:
                raise ValueError(f"the key `{key_id}` wraps what is stored now; rotate first")
            if key_id not in {each.key_id for each in keys}:
                raise UnknownKeyError(key_id)
            return [each for each in keys if each.key_id != key_id]

        self._change(change)

    def _fresh(self) -> list[_Key]:
        """The keys as the file has them now; as they were known while it cannot be read."""
        try:
            self._refresh()
            self._readable = True
        except (OSError, ValueError) as error:
            if self._readable:  # said once: what is known may do for long
                log.warning("key_file_unreadable", cause=type(error).__name__)
            self._readable = False
        return self._keys

    def _refresh(self) -> None:
        if self._path is None:
            return
        about = self._path.stat()
        stamp = (about.st_ino, about.st_mtime_ns, about.st_size)
        if stamp == self._seen:
            return
        with self._loading:
            before, self._keys, self._seen = self._keys, _read(self._path), stamp
        if not {each.key_id for each in before} & {each.key_id for each in self._keys}:
            log.warning("key_file_replaced", wraps=_wrapping(self._keys).key_id)  # rotated and retired, or a wrong file

    def _change(self, change: Callable[[list[_Key]], list[_Key]]) -> list[_Key]:
        """Replaces the file by a changed one, in one move; of two who do so at a time the other comes after."""
        if self._path is None:
            raise ValueError("this key-encryption key has no file and cannot be changed")
        target = self._path.resolve()
        with _alone(target.parent):
            changed = change(_read(target))
            draft = target.with_name(f"{target.name}.new")
            draft.unlink(missing_ok=True)  # of one who was killed here
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                keep_owner(file.fileno(), target)
                file.writelines(each.line for each in changed)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
            sync_folder(target.parent)
            self._refresh()
        return changed


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _read(path: Path) -> list[_Key]:
    if path.stat().st_mode & 0o077:
        raise PermissionError(f"{path} may be read by others; run `chmod 600 {path}`")
    try:
        keys = [_parsed(line) for line in path.read_text("ascii").splitlines()]
        _wrapping(keys)
    except (ValueError, StopIteration):
        raise ValueError(f"{path} holds no key-encryption key; restore it from its backup") from None
    return keys


def _parsed(line: str) -> _Key:
    text, _, stated = line.strip().partition(" ")
    since = datetime.fromisoformat(stated) if stated and stated != _WAITING else None
    return _checked(_Key(b64decode(text, validate=True), since, stated == _WAITING))


def _checked(key: _Key) -> _Key:
    if len(key.key) != _KEY_BYTES:
        raise ValueError("the key-encryption key must have 32 bytes; `FileKek.create` makes one")
    return key


def _wrapping(keys: list[_Key]) -> _Key:
    return next(each for each in reversed(keys) if not each.waiting)


def _refuse_inside(path: Path, home: Path) -> None:
    if path.resolve().is_relative_to(home.resolve()):
        raise ValueError(
            f"the key-encryption key {path} lies inside {home}, whose copies would then carry "
            "key and data together; keep it elsewhere"
        )
