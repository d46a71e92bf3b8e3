"""Named bytes, and what every place for them promises; what they mean is not known here."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


#: What an object is called while it is written; one that died leaves it behind.
WRITING = ".writing"


@dataclass(frozen=True)
class Listed:
    """An object as a listing tells of it."""

    path: str
    size: int
    modified: datetime


class Objects(Protocol):
    """Bytes by path. After a write or create has returned, the object survives the loss of power."""

    async def write(self, path: str, parts: AsyncIterator[bytes]) -> None:
        """Store the parts as one object, all or nothing; the path is new."""

    async def create(self, path: str, content: bytes) -> bool:
        """Store a small object, all or nothing; False, and nothing changed, when the path is taken."""

    async def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return the bytes from `start`, fewer where the object ends; FileNotFoundError if there is none."""

    async def replace(self, path: str, old: bytes, new: bytes) -> bool:
        """Put a small object in the place of `old`, all or nothing; False, and nothing changed, when it is not that
        which is there, or nothing is."""

    async def remove(self, path: str, old: bytes | None = None) -> None:
        """Remove the object; nothing happens when there is none, or when it is not `old`, if that is given."""

    async def clear(self, folder: str) -> None:
        """Remove all objects below a folder; nothing happens when there are none."""

    def list(self, folder: str = "", after: str = "") -> AsyncIterator[Listed]:
        """Yield the objects below a folder whose path is behind `after`, in the order of their paths.

        What comes or goes meanwhile may be told or not.
        """


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run the work in a thread; when cancelled, wait until the thread is done with its files, then raise."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
