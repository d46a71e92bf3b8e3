"""Carries out erasures: rows are found and parts written anew apart, versions change at once, bytes are shredded."""

from __future__ import annotations

import asyncio
import secrets
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from itertools import accumulate

import msgspec

from kit.blobs import BlobStore
from kit.rpc.errors import Corrupt, Fault, NotFound
from kit.rpc.names import parent_of, project_of
from kit.store import Database, failpoint
from kit.telemetry import current_trace_id, get_log
from services.dataset import checks, parts, store
from services.dataset.analysis import StoredBytes
from services.dataset.checks import wire
from services.dataset.erasure import commands as erasure_commands
from services.dataset.erasure import domain as erasures
from services.dataset.erasure.domain import Change
from services.dataset.media import assets
from services.dataset.parts import PartRow
from services.dataset.uploads.judging import StoredParts
from sluice.dataset import v1 as dataset

log = get_log(__name__)
NOTE_EVERY_S = 1.0
#: How long what an erasure looks for is spared before the erasure names it: another may be shredding meanwhile.
SPARED = timedelta(minutes=10)


class Predicate(msgspec.Struct):
    """Which rows are to go: those that have one of the values in the column, which files may call by another name."""

    column: str
    names: list[str]
    values: list[str]
    salt: str


class PredicateStore:
    """What erasures look for, each in a blob of its own: encrypted while it is needed, and shredded with the rows."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    async def put(self, erasure: str, column: str, names: Iterable[str], values: Sequence[str]) -> PartRow:
        """Stores it for an erasure that is about to be ordered; it is swept unless that names it."""
        content = msgspec.json.encode(Predicate(column, sorted({column, *names}), list(values), secrets.token_hex(16)))
        part = checks.Part(content, parts.NO_ROWS)
        row = parts.new_part(erasures.predicate_of(erasure), 0, part)
        await self._database.transact(partial(parts.doom, project=row.project, digests=[row.digest], spared=SPARED))
        await self._blobs.put(row.project, _once(content), digest=row.digest)
        return row

    async def get(self, erasure: str) -> Predicate:
        """What an erasure looks for. Raises NotFound or Corrupt."""
        async with self._database.read() as session:
            found = await parts.of(session, erasures.predicate_of(erasure))
        if not found:
            raise NotFound(f"what `{erasure}` was to forget is gone")
        blob = found[0]
        content = b"".join([piece async for piece in self._blobs.open(blob.project, blob.digest)])
        return msgspec.json.decode(content, type=Predicate)


class Erasing:
    """One erasure after the other. What a process before this one left half done begins anew, without harm."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        stored: StoredParts,
        spare: checks.Spare,
        drop_pieces: Callable[[str], Awaitable[None]],
    ) -> None:
        """``drop_pieces`` deletes what an upload that is over was gathered in."""
        self._database = database
        self._blobs = blobs
        self._stored = stored
        self._spare = spare
        self._drop_pieces = drop_pieces

    async def erase(self, name: str) -> None:
        """Brings an erasure to its end. Raises Fault and OSError for faults of the machine: it goes on later."""
        async with self._database.read() as session:
            erasure = await erasures.ERASURES.get(session, name)
        if erasure.state == dataset.ERASURE_STATE_RUNNING:
            await self._apply(erasure)
            async with self._database.read() as session:
                erasure = await erasures.ERASURES.get(session, name)
        if erasure.state == dataset.ERASURE_STATE_SHREDDING:
            await self._shred(erasure)

    async def _apply(self, erasure: dataset.Erasure) -> None:
        damaged = False
        try:
            await self._search(erasure)
            return
        except checks.CheckKilled:
            raise  # the system ended it: the next may get through
        except checks.CheckFailed as failure:
            why = _broken(erasure, failure.why, failure.place) if failure.ours else failure.why
        except (Corrupt, NotFound):
            damaged = True
            why = "stored rows of the dataset are damaged; upload its files to another dataset, and forget them there"
        except (Fault, OSError):
            raise
        except Exception as error:  # else the same erasure would begin again and again
            why = _broken(erasure, type(error).__name__, traceback.extract_tb(error.__traceback__)[-1])
        fail = partial(erasure_commands.fail, name=erasure.name, why=why, damaged=damaged)
        await self._database.transact(fail)

    async def _search(self, erasure: dataset.Erasure) -> None:
        """Looks through all parts, those included that come meanwhile, until the versions have changed in one move."""
        of, name = parent_of(erasure.name), erasure.name
        predicate = await PredicateStore(self._database, self._blobs).get(name)
        await self._database.transact(partial(parts.drop, owner=name))  # of a try that was broken off
        seen: set[str] = set()
        changes: dict[str, Change] = {}
        blank = 0
        gone: dict[str, Change] = {}
        while True:
            async with self._database.read() as session:
                found = [part for part in await erasures.stored_parts(session, of) if part.digest not in seen]
                aside = [part for part in await erasures.put_aside(session, of) if part.digest not in seen]
            seen.update(part.digest for part in [*found, *aside])
            more, unmatched = await self._found(erasure, found, predicate, len(changes))
            changes, blank = changes | more, blank + unmatched
            if erasure.dry_run:
                await self._database.transact(partial(erasure_commands.count, name=name, changes=changes, blank=blank))
                return
            gone |= await self._sifted(name, aside, predicate, len(gone))
            failpoint("erasure_before_commit")
            command = partial(erasure_commands.apply, name=name, changes=changes, blank=blank, aside=gone, seen=seen)
            if await self._database.transact(command):
                failpoint("erasure_committed")
                return

    async def _found(
        self, erasure: dataset.Erasure, found: Sequence[PartRow], predicate: Predicate, places: int
    ) -> tuple[dict[str, Change], int]:
        """The parts with such rows, and what takes their place: stored as the erasure's until versions take it.

        Beside it, how many rows of all parts have nothing in the column.
        """
        if not found:
            return {}, 0
        kind = wire.Match if erasure.dry_run else wire.Erase
        told, counts, new = 0.0, b"[]", list[PartRow]()
        total = sum(part.rows_of() for part in found)
        async for event in self._done(kind(_stretches(found), predicate.column, predicate.values), found):
            match event:
                case checks.Progress() if (now := asyncio.get_running_loop().time()) - told >= NOTE_EVERY_S:
                    told = now
                    note = partial(erasure_commands.note_progress, name=erasure.name, rows=event.rows, total=total)
                    await self._database.transact(note)
                case checks.Part():
                    new.append(parts.new_part(erasure.name, places + len(new), event))
                    await self._stored.keep(erasure.name, new[-1].place, event)
                    failpoint("erasure_part_rewritten")
                case checks.Found():
                    counts = event.figures
        hits = list(zip(found, msgspec.json.decode(counts, type=list[tuple[int, int]]), strict=True))
        had = [(part, count) for part, (count, _) in hits if count]
        after = [part for part, _ in had] if erasure.dry_run else new
        changes = {part.digest: Change(count, put) for (part, count), put in zip(had, after, strict=True)}
        return changes, sum(blank for _, (_, blank) in hits)

    async def _sifted(
        self, name: str, aside: Sequence[PartRow], predicate: Predicate, places: int
    ) -> dict[str, Change]:
        """The same for rows that were put aside."""
        if not aside:
            return {}
        lines, counts = list[checks.Aside](), b"[]"
        async for event in self._done(wire.Sift(_stretches(aside), predicate.names, predicate.values), aside):
            if isinstance(event, checks.Aside):
                lines.append(event)
            elif isinstance(event, checks.Found):
                counts = event.figures
        gone: dict[str, Change] = {}
        for old, new, count in zip(aside, lines, msgspec.json.decode(counts, type=list[int]), strict=True):
            if count:
                part = checks.Part(new.content, parts.NO_ROWS)
                row = parts.new_part(name, -1 - places - len(gone), part)
                await self._stored.keep(name, row.place, part)
                gone[old.digest] = Change(count, row)
        return gone

    async def _done(self, task: wire.AnyTask, found: Sequence[PartRow]) -> AsyncIterator[checks.Event]:
        async with aclosing(checks.run(self._spare.take(), task, StoredBytes(self._blobs, found))) as events:
            async for event in events:
                yield event

    async def _shred(self, erasure: dataset.Erasure) -> None:
        """Deletes all that only the forgotten rows were in; whatever of it is gone already is no matter."""
        of = parent_of(erasure.name)
        while True:
            async with self._database.read() as session:
                over = await store.leftovers(session, of)
                ownerless = await parts.ownerless(session, of)
                beside = await assets.leftovers(session)
            for name in over:
                await self._drop_pieces(name)
            for name in ownerless:
                await self._stored.drop(name)
            for name in beside:
                await self._database.transact(partial(assets.drop, upload=name))
            if not (over or ownerless or beside):
                break
        await self._stored.shred(project_of(of))
        await self._database.transact(partial(erasure_commands.finish, name=erasure.name))


def _broken(erasure: dataset.Erasure, cause: str, place: object) -> str:
    """A fault of ours is told by its place: its own words may hold content."""
    log.error("erasure_broke", erasure=erasure.name, cause=cause, place=str(place))
    return f"it met a fault of the suite; the log has it under trace id {current_trace_id()}"


def _stretches(found: Sequence[PartRow]) -> list[wire.Stretch]:
    before = accumulate((part.rows_of() for part in found), initial=0)
    return [wire.Stretch(part.size_bytes, rows) for part, rows in zip(found, before, strict=False)]


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
