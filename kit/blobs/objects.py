"""Named bytes on local disks, written to outlive a power cut; what they mean is not known here."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Objects(Protocol):
    """Bytes by path. After a write or create has returned, the object survives the loss of power."""

    async def write(self, path: str, parts: AsyncIterator[bytes]) -> None:
        """Store the parts as one object, all or nothing; the path is new."""

    async def create(self, path: str, content: bytes) -> bool:
        """Store a small object, all or nothing; False, and nothing changed, when the path is taken."""

    async def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return the bytes from `start`, fewer where the object ends; FileNotFoundError if there is none."""

    async def remove(self, path: str) -> None:
        """Remove the object; nothing happens when there is none."""


class LocalObjects:
    """Objects as files (0600) under a folder.

    obstore's LocalStore writes atomically but never calls fsync, so this is our own: write aside, fsync,
    rename or link, fsync the folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def write(self, path: str, parts: AsyncIterator[bytes]) -> None:
        target = self._root / path
        aside = target.with_name(f"{target.name}.writing")
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

    async def remove(self, path: str) -> None:
        await in_thread(self._remove, self._root / path)

    @staticmethod
    def _create(target: Path, content: bytes) -> bool:
        aside = target.with_name(f"{target.name}.{os.urandom(8).hex()}.writing")
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
    def _remove(target: Path) -> None:
        with suppress(FileNotFoundError):
            target.unlink()
            sync_folder(target.parent)


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run the work in a thread; when cancelled, wait until the thread is done with its files, then raise."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def sync_folder(folder: Path) -> None:
    """Make the entries of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


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
