"""What is told of whole versions: found by a process that parses rows, since this one never does, and kept.

What is found follows from the digests of versions alone, so it is kept under them: as a blob, since it may name labels
and blobs are encrypted and can be shredded; named as a part, as `parts` already sees to blobs that nobody names.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import msgspec

from kit.blobs import BlobStore
from kit.rpc.errors import Corrupt, Exhausted, NotFound
from kit.rpc.names import project_of
from kit.store import Database
from kit.telemetry import get_log
from services.dataset import checks, parts, store
from services.dataset.media import assets
from services.dataset.parts import PartRow
from services.dataset.uploads.judging import StoredParts
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.types import v1 as types

log = get_log(__name__)
#: Names a way of counting: what was found by another is not used any more.
REVISION = 1
#: How far it is, and at last what was found, as JSON.
Event = types.Progress | bytes


class Rows(NamedTuple):
    """A version, and the parts that its rows lie in."""

    version: dataset.DatasetVersion
    parts: Sequence[PartRow]


class StoredBytes:
    """The bytes of stored parts as one run, one part after the other, and some more after them."""

    def __init__(self, blobs: BlobStore, found: Sequence[PartRow], more: bytes = b"") -> None:
        self._blobs = blobs
        self._parts = found
        self._more = more
        self._starts = [0, *accumulate(part.size_bytes for part in found)]

    async def read(self, start: int, length: int) -> bytes:
        """Bytes of one part. Raises Corrupt or NotFound when they are damaged or gone."""
        place = bisect_right(self._starts, start) - 1
        if place == len(self._parts):
            return self._more[start - self._starts[-1] :][:length]
        part = self._parts[place]
        pieces = self._blobs.open(part.project, part.digest, start - self._starts[place], length)
        return b"".join([piece async for piece in pieces])


class Analyst:
    """Has versions looked at, one at a time, as each look may take a gigabyte; what was found once is given at once.

    All raise Corrupt or NotFound when stored bytes are damaged or gone, Exhausted (LIMIT_EXCEEDED) for a look that
    takes too much, or (OUT_OF_MEMORY) whose process the system ends twice, and CheckFailed when the process breaks.
    """

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        stored: StoredParts,
        spare: checks.Spare,
        *,
        max_memory_bytes: int = checks.MAX_MEMORY_BYTES,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._stored = stored
        self._spare = spare
        self._max_memory_bytes = max_memory_bytes
        self._turn = asyncio.Lock()

    async def rows_of(self, version: str) -> Rows:
        """The parts of a version. Raises NotFound; StateConflict for one whose rows are not there to be read."""
        async with self._database.read() as session:
            found = await store.get_version(session, version)
            return Rows(found, await parts.stored(session, found))

    async def statistics(self, rows: Rows) -> AsyncGenerator[Event]:
        """What the rows of a version are like, and how large the images are that they name."""
        async with self._database.read() as session:
            found = await assets.image_sizes(session, project_of(rows.version.name), rows.parts)
        sizes = await asyncio.to_thread(msgspec.json.encode, found)
        task = checks.Describe(_stretches(rows.parts), len(sizes))
        async with aclosing(self._given("statistics", [rows], task, rows.parts, sizes)) as events:
            async for event in events:
                yield event

    def duplicates(self, rows: Rows) -> AsyncGenerator[Event]:
        """Which rows of a version repeat others."""
        return self._given("duplicates", [rows], checks.Repeats(_stretches(rows.parts)), rows.parts)

    def difference(self, rows: Rows, base: Rows) -> AsyncGenerator[Event]:
        """Which rows only one of two versions has; parts that both have are not read."""
        common = Counter(part.digest for part in base.parts) & Counter(part.digest for part in rows.parts)
        before, after = _without(base.parts, common), _without(rows.parts, common)
        task = checks.Compare(_stretches(base.parts, before), _stretches(rows.parts, after), _count([*before, *after]))
        return self._given("difference", [rows, base], task, [*before, *after])

    async def count_new(self, before: Rows, added: Sequence[PartRow]) -> int:
        """How many of the rows that parts bring have a key that no row of a version has."""
        known = {part.digest for part in before.parts}
        new = [part for part in added if part.digest not in known]
        read = [*before.parts, *new]
        task = checks.CountNew(_stretches(before.parts), _stretches(new), _count(read))
        return await self._counted(before.version.name, task, read)

    async def count_shared_ids(self, newest: Rows, compared: Sequence[PartRow], added: Sequence[PartRow]) -> int:
        """How many of the rows that parts bring have an id of the newest version; parts compared before are not read.

        It takes as long as the parts take to read that have come since, and so keeps up with a busy feed.
        """
        known = {part.digest for part in compared}
        since = [part for part in newest.parts if part.digest not in known]
        read = [*since, *added]
        task = checks.SharedIds(_stretches(since), _stretches(added), _count(read))
        return await self._counted(newest.version.name, task, read)

    async def _counted(self, name: str, task: checks.AnyTask, read: Sequence[PartRow]) -> int:
        count = b"0"
        async with aclosing(self._looked(name, task, read)) as events:
            async for event in events:
                count = event if isinstance(event, bytes) else count
        return int(count)

    async def _given(
        self, what: str, versions: Sequence[Rows], task: checks.AnyTask, read: Sequence[PartRow], more: bytes = b""
    ) -> AsyncGenerator[Event]:
        """What was kept of it; else what is found now, which is then kept."""
        name = versions[0].version.name
        digests = ".".join(each.version.digest.removeprefix("sha256:") for each in versions)
        owner = f"{project_of(name)}/profiles/{digests}.{what}.{REVISION}"
        if (kept := await self._kept(owner)) is not None:
            yield kept
            return
        if self._turn.locked():
            yield types.Progress(total=_count(read), phase="waiting")
        async with self._turn:
            if (kept := await self._kept(owner)) is not None:  # whoever had the turn asked the same
                yield kept
                return
            async with aclosing(self._looked(name, task, read, more)) as events:
                async for event in events:
                    if isinstance(event, bytes):
                        await self._keep(owner, versions, event)
                    yield event

    async def _looked(
        self, name: str, task: checks.AnyTask, read: Sequence[PartRow], more: bytes = b""
    ) -> AsyncGenerator[Event]:
        """A look, and another where the system ended the first: the memory may be free by then."""
        for killed_before in (False, True):
            try:
                async with aclosing(self._looked_once(name, task, read, more)) as events:
                    async for event in events:
                        yield event
                return
            except checks.CheckKilled:
                log.warning("analysis_killed", version=name, again=not killed_before)
        raise Exhausted(
            f"`{name}` was not looked through: the machine of the service ran out of memory, twice; "
            "free some there, then try again",
            reason=errors.ERROR_REASON_OUT_OF_MEMORY,
        )

    async def _looked_once(
        self, name: str, task: checks.AnyTask, read: Sequence[PartRow], more: bytes
    ) -> AsyncGenerator[Event]:
        total = _count(read)
        try:
            source = StoredBytes(self._blobs, read, more)
            running = checks.run(self._spare.take(), task, source, max_memory_bytes=self._max_memory_bytes)
            async with aclosing(running) as events:
                async for event in events:
                    match event:
                        case checks.Progress():
                            yield types.Progress(done=event.rows, total=total, phase="reading")
                        case checks.Found():
                            yield event.figures
        except checks.CheckKilled:
            raise
        except checks.CheckFailed as failure:
            if failure.ours:
                log.error("analysis_broke", version=name, cause=failure.why, place=failure.place)
                raise
            raise Exhausted(
                f"`{name}` was not looked through: {failure.why}", reason=errors.ERROR_REASON_LIMIT_EXCEEDED
            ) from None

    async def _keep(self, owner: str, versions: Sequence[Rows], figures: bytes) -> None:
        """Keeps what was found, unless rows were forgotten meanwhile: then nothing of them is kept."""
        await self._stored.replace(owner, figures)
        async with self._database.read() as session:
            now = [await store.get_version(session, each.version.name) for each in versions]
        if any(
            new.digest != old.version.digest or new.HasField("retire_time")
            for new, old in zip(now, versions, strict=True)
        ):
            await self._database.transact(partial(parts.drop, owner=owner))

    async def _kept(self, owner: str) -> bytes | None:
        """What was found before; None when nothing was, or it is damaged."""
        async with self._database.read() as session:
            found = await parts.of(session, owner)
        try:
            return await StoredBytes(self._blobs, found).read(0, found[0].size_bytes) if found else None
        except (Corrupt, NotFound):  # it can be found again
            return None


def _stretches(whole: Sequence[PartRow], wanted: Sequence[PartRow] | None = None) -> list[checks.Stretch]:
    """Some parts of a version, with the rows before each."""
    places = {part.place for part in (whole if wanted is None else wanted)}
    starts = accumulate((part.rows_of() for part in whole), initial=0)
    return [
        checks.Stretch(part.size_bytes, start)
        for part, start in zip(whole, starts, strict=False)
        if part.place in places
    ]


def _without(whole: Sequence[PartRow], common: Counter[str]) -> list[PartRow]:
    """The parts of a version beyond those that it has in common with another; each counts as often as it is there."""
    left, found = common.copy(), []
    for part in whole:
        left[part.digest] -= 1
        if left[part.digest] < 0:
            found.append(part)
    return found


def _count(found: Sequence[PartRow]) -> int:
    return sum(part.rows_of() for part in found)
