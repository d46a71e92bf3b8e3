"""Named bytes on local disks, written to outlive a power cut; what they mean is not known here."""

import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from kit.blobs.objects import WRITING, Listed, in_thread

_LISTED_AT_ONCE = 500


class LocalObjects:
    """Objects as files (0600) under a folder.

    obstore's LocalStore writes atomically but never calls fsync, so this is our own: write aside, fsync,
    rename or link, fsync the folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def write(self, path: str, parts: AsyncIterator[bytes]) -> None:
        target = self._root / path
        aside = target.with_name(f"{target.name}{WRITING}")
        descriptor = await in_thread(_open_new, aside)
        try:
            async for part in parts:
                await in_thread(_write_all, descriptor, part)
            await in_thread(_publish, descriptor, aside, target)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    async def create(self, path: str, content: bytes) -> bool:
        return await in_thread(self._create, self._root / path, content)

    async def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        return await in_thread(_read, self._root / path, start, length)

    async def replace(self, path: str, old: bytes, new: bytes) -> bool:
        return await in_thread(self._replace, self._root / path, old, new)

    async def remove(self, path: str, old: bytes | None = None) -> None:
        await in_thread(self._remove, self._root / path, old)

    async def clear(self, folder: str) -> None:
        await in_thread(self._clear, self._root / folder)

    async def list(self, folder: str = "", after: str = "") -> AsyncIterator[Listed]:
        found = _walk(self._root, folder.strip("/"), after)
        while some := await in_thread(lambda: list(islice(found, _LISTED_AT_ONCE))):
            for each in some:
                yield each

    @staticmethod
    def _create(target: Path, content: bytes) -> bool:
        aside = _aside(target)
        descriptor = _open_new(aside)
        try:
            _write_all(descriptor, content)
            os.fsync(descriptor)
            try:
                target.hardlink_to(aside)
            except FileExistsError:
                return False
            finally:
                sync_folder(target.parent)  # also when taken: the other writer may not have come so far
            return True
        finally:
            os.close(descriptor)
            aside.unlink(missing_ok=True)

    @staticmethod
    def _replace(target: Path, old: bytes, new: bytes) -> bool:
        with suppress(FileNotFoundError), _only_one(target.parent):
            if target.read_bytes() != old:
                return False
            aside = _aside(target)
            descriptor = _open_new(aside)
            try:
                keep_owner(descriptor, target)
                _write_all(descriptor, new)
                _publish(descriptor, aside, target)
                return True
            finally:
                os.close(descriptor)
                aside.unlink(missing_ok=True)
        return False

    @staticmethod
    def _remove(target: Path, old: bytes | None) -> None:
        with suppress(FileNotFoundError), _only_one(target.parent):
            if old is None or target.read_bytes() == old:
                target.unlink()
                sync_folder(target.parent)

    @staticmethod
    def _clear(folder: Path) -> None:
        def let_go(function: object, path: str, error: tuple[type[BaseException], BaseException, object]) -> None:
            if not isinstance(error[1], FileNotFoundError):  # somebody else removed it
                raise error[1]

        if folder.is_dir():
            shutil.rmtree(folder, onerror=let_go)
            sync_folder(folder.parent)


def keep_owner(descriptor: int, replaced: Path) -> None:
    """Give a new file the owner of the one that it will replace: root may be at work on what another user runs."""
    about = replaced.stat()
    if (about.st_uid, about.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(descriptor, about.st_uid, about.st_gid)


def sync_folder(folder: Path) -> None:
    """Make the entries of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Of all processes of this machine one at a time removes or replaces in this folder.

    Else an object that was removed could come back by a replacement that had seen it before.
    """
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _walk(root: Path, folder: str, after: str) -> Iterator[Listed]:
    """Depth first, and a folder as if its name ended with a slash: so it is the order of whole paths, as S3 has it."""
    try:
        entries = sorted(
            (f"{folder}/{entry.name}".lstrip("/") + ("/" if entry.is_dir(follow_symlinks=False) else ""), entry)
            for entry in os.scandir(root / folder)
        )
    except (FileNotFoundError, NotADirectoryError):
        return
    for path, entry in entries:
        if path.endswith("/"):
            if path > after or after.startswith(path):
                yield from _walk(root, path.rstrip("/"), after)
        elif path > after:
            with suppress(FileNotFoundError):
                about = entry.stat(follow_symlinks=False)
                yield Listed(path, about.st_size, datetime.fromtimestamp(about.st_mtime, UTC))


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


def _aside(target: Path) -> Path:
    return target.with_name(f"{target.name}.{os.urandom(8).hex()}{WRITING}")


def _open_new(path: Path) -> int:
    _make_folder(path.parent)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def _write_all(descriptor: int, content: bytes) -> None:
    with memoryview(content) as view:
        written = 0
        while written < len(view):
            written += os.write(descriptor, view[written:])


def _publish(descriptor: int, aside: Path, target: Path) -> None:
    os.fsync(descriptor)
    aside.rename(target)
    sync_folder(target.parent)


def _read(path: Path, start: int, length: int | None) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        if length is None:
            return file.readall()
        parts = []
        while length > 0 and (part := file.read(length)):
            parts.append(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
