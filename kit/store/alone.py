"""One process a SQLite file: replicas are for PostgreSQL. What the process does is not known here."""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kit.rpc.errors import Unavailable

SQLITE = "sqlite:///"
LOOK_S = 0.1


@asynccontextmanager
async def alone(url: str, *, within_s: float = 5.0) -> AsyncIterator[None]:
    """Holds the file of a SQLite ``url`` for this process; the kernel lets go of it however the process ends.

    Raises Unavailable when another process still has it after ``within_s``. PostgreSQL and `sqlite://` need no hold.
    """
    path = url.removeprefix(SQLITE)
    if path == url:
        yield
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not await _locked_within(file, within_s):
            raise Unavailable(
                f"another process works on `{path}`; end it, or give replicas a PostgreSQL database "
                "with SLUICE_DATABASE_URL"
            )
        yield
    finally:
        os.close(file)


async def _locked_within(file: int, seconds: float) -> bool:
    """A process that ends may still have it for a moment."""
    deadline = time.monotonic() + seconds
    while not _locked(file):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(LOOK_S)
    return True


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
