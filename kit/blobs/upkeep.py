"""What keeps a store of blobs in order: finding all of them, reading them slowly, sweeping what writes that died have
left. It does not know who owns a blob, and deletes none that can be read."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from kit.blobs.encrypted import EncryptedBlobs
from kit.blobs.frames import TamperedError, decode_envelope
from kit.blobs.objects import WRITING, Listed, Objects, in_thread

#: How old data without an envelope must be to count as left behind: writing a blob takes less, and clocks differ.
LEFT_BEHIND = timedelta(days=2)
_SPACE = r"(?P<space>projects/[a-z0-9-]+(?:/uploads/[a-z0-9-]+)?)"
_ENVELOPE = re.compile(rf"{_SPACE}/(?:blobs/[0-9a-f]{{2}}|(?P<aside>quarantine))/(?P<name>[0-9a-f]{{64}})")
_DATA = re.compile(rf"{_SPACE}/data/[0-9a-f]{{2}}/(?P<name>[0-9a-f]{{32}})")


@dataclass(frozen=True)
class Place:
    """Where the envelope of a blob lies: in use, or set aside."""

    space: str
    digest: str
    path: str
    aside: bool
    modified: datetime


async def places(objects: Objects, folder: str = "projects", after: str = "") -> AsyncIterator[Place]:
    """Yield where envelopes lie below a folder and behind the path `after`, in the order of their paths."""
    async for each in objects.list(folder, after):
        if found := _ENVELOPE.fullmatch(each.path):
            aside = found["aside"] is not None
            yield Place(found["space"], f"sha256:{found['name']}", each.path, aside, each.modified)


class Pace:
    """Holds work to so many bytes a second; without a figure it does not wait."""

    def __init__(self, bytes_per_s: float = 0.0) -> None:
        self._rate = bytes_per_s
        self._due = 0.0

    async def spend(self, size: int) -> None:
        """Returns when the bytes that were worked on are paid for."""
        if self._rate:
            clock = asyncio.get_running_loop().time
            self._due = max(self._due, clock()) + size / self._rate
            await asyncio.sleep(self._due - clock())


async def verify(blobs: EncryptedBlobs, place: Place, pace: Pace) -> int:
    """Read a whole blob and return its size in bytes.

    Raises Corrupt when it is damaged, which has set it aside, NotFound when it is gone, StateConflict when its key is
    not ours, and what the disk says.
    """
    digest, size = hashlib.sha256(), 0
    async for piece in blobs.open(place.space, place.digest):
        await in_thread(digest.update, piece)
        size += len(piece)
        await pace.spend(len(piece))
    await pace.spend(1024)  # its envelope: else many small ones would go at any speed
    if f"sha256:{digest.hexdigest()}" != place.digest:  # no disk does this: it was so before it was sealed
        raise await blobs.set_aside(place.space, place.digest, "the content is not that of its digest")
    return size


async def left_behind(objects: Objects, space: str, now: datetime) -> list[Listed]:
    """What writes that died have left in a space: data that no envelope names and drafts, two days old or older.

    Nobody can read them: the key of such data was never written down.
    """
    old = []
    async for each in objects.list(f"{space}/data"):
        if now - each.modified > LEFT_BEHIND and (_DATA.fullmatch(each.path) or each.path.endswith(WRITING)):
            old.append(each)
    if not old:
        return []
    named = set()
    for folder in ("blobs", "quarantine"):
        async for each in objects.list(f"{space}/{folder}"):
            if each.path.endswith(WRITING):
                old += [each] if now - each.modified > LEFT_BEHIND else []
                continue
            try:
                named.add(decode_envelope(await objects.read(each.path)).object_id)
            except FileNotFoundError:
                continue
            except TamperedError:
                return []  # it may have named any of them
    return [each for each in old if each.path.rpartition("/")[2] not in named]


async def spaces(objects: Objects) -> list[str]:
    """The spaces in which anything lies, in order: projects, and uploads inside them."""
    found: dict[str, None] = {}
    async for each in objects.list("projects"):
        if match := re.match(rf"{_SPACE}/(?:blobs|data|quarantine)/", each.path):
            found[match["space"]] = None
    return list(found)
