"""Reads every stored blob of the suite, slowly and over and over, so that damage is known before a reader meets it.

The store is shared by all services, so one of them looks at all of it: this one. It deletes only what nobody can name:
data whose key was never written down, and what is left in the space of an upload that is over. Assets that nobody
names it hands to what deletes such. A blob of a project may be anybody's and is never deleted here.
"""

from __future__ import annotations

import asyncio
import errno
from datetime import datetime, timedelta
from functools import partial

from kit.blobs import EncryptedBlobs
from kit.blobs.upkeep import LEFT_BEHIND, Pace, Place, left_behind, places, spaces, verify
from kit.rpc.errors import Corrupt, Fault, NotFound, StateConflict
from kit.rpc.names import project_of
from kit.store import Database, Unit, leading
from kit.store.leading import Leadership
from kit.telemetry import count, get_log, set_gauge
from services.dataset import damage
from services.dataset.damage import DAMAGED, ScrubRow
from services.dataset.media import assets
from services.dataset.uploads.staged import holds_pieces
from sluice.dataset import v1 as dataset

log = get_log(__name__)
#: How often it is looked whether a reader has set something aside.
LOOK_S = 300.0
#: How often it is written down how far it is.
SAVE_S = 5.0
_WAIT_S = 10.0
#: How long nothing has come to the space of an upload that is over before what is left there goes.
_QUIET = timedelta(hours=1)


class Scrubber:
    """One look through everything after another."""

    def __init__(self, database: Database, blobs: EncryptedBlobs, *, bytes_per_s: float, every_s: float) -> None:
        self.database = database
        self.blobs = blobs
        self.every = timedelta(seconds=every_s)
        self._pace = Pace(bytes_per_s)

    async def run(self) -> None:
        """Works until cancelled; what an earlier process began is gone on with. Of several processes one works."""
        while True:
            try:
                async with leading(self.database, "dataset-scrub", poll_s=_WAIT_S) as leadership:
                    while True:
                        await self.step(leadership)
                        await asyncio.sleep(min(LOOK_S, self.every.total_seconds()))
            except (Fault, OSError) as error:
                log.warning("scrub_waits", reason=error.reason_name if isinstance(error, Fault) else error.strerror)
            await asyncio.sleep(_WAIT_S)

    async def step(self, leadership: Leadership | None = None) -> None:
        """Goes on with the look that is under way, or due, to its end; else looks only at what was set aside."""
        scrub, now = await self._scrub(), self.database.clock()
        if scrub is None or (scrub.ended is not None and now - scrub.begun >= self.every):
            scrub = ScrubRow(begun=now)
            await self._save(scrub)
        if scrub.ended is None:
            await self._pass(scrub, leadership)
        else:
            await self.look_aside()
        async with self.database.read() as session:
            set_gauge("sluice_damaged_blobs", await DAMAGED.count(session))

    async def _pass(self, scrub: ScrubRow, leadership: Leadership | None) -> None:
        clock, told = asyncio.get_running_loop().time, scrub.size_bytes
        saved = clock()
        async for place in places(self.blobs.objects, after=scrub.place):
            await self._look_at(place, scrub)
            scrub.place = place.path
            if clock() - saved >= SAVE_S:
                if leadership is not None:
                    await leadership.check()
                await self._save(scrub)
                count("sluice_scrubbed_bytes_total", scrub.size_bytes - told)
                saved, told = clock(), scrub.size_bytes
        await self._find_missing(scrub)
        swept = await self._sweep()
        scrub.ended = self.database.clock()
        await self._save(scrub)
        count("sluice_scrubbed_bytes_total", scrub.size_bytes - told)
        log.info("scrubbed", blobs=scrub.blobs, size_bytes=scrub.size_bytes, damaged=scrub.damaged, swept=swept)

    async def _look_at(self, place: Place, scrub: ScrubRow) -> None:
        if place.aside:
            if await self._look_at_aside(place):  # and its bytes were read just before: `blobs` comes before this
                await self.blobs.drop_aside(place.space, place.digest)
            return
        try:
            scrub.size_bytes += await verify(self.blobs, place, self._pace)
            scrub.blobs += 1
        except NotFound:  # deleted meanwhile
            return
        except Corrupt:
            scrub.damaged += 1
            await self._note(place.space, place.digest, dataset.DAMAGE_SET_ASIDE)
        except StateConflict:  # wrapped by a key that is not held
            scrub.damaged += 1
            await self._note(place.space, place.digest, dataset.DAMAGE_UNREADABLE)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            scrub.damaged += 1
            await self._note(place.space, place.digest, dataset.DAMAGE_UNREADABLE)
        else:
            await self._forget(place)

    async def is_damaged(self, version: str) -> bool:
        """Whether a version is known to be damaged, by what is set aside now."""
        await self.look_aside(project_of(version))
        async with self.database.read() as session:
            return await damage.hits(session, version)

    async def look_aside(self, project: str = "") -> None:
        """Tells of what was set aside since, and no more of what was stored again; of all projects if none is given."""
        async with self.database.read() as session:
            projects = [project] if project else await damage.projects(session)
            known = await DAMAGED.find(session, **({"parent": project} if project else {}))
            missing = [each for each in known if each.damage == dataset.DAMAGE_MISSING]
        for blob in missing:
            if await self.blobs.stat(blob.space, blob.digest) is not None:
                await self.database.transact(partial(damage.forget, name=blob.name))
        for project in projects:
            for space in (project, assets.space_of(project)):
                async for place in places(self.blobs.objects, f"{space}/quarantine"):
                    await self._look_at_aside(place)

    async def _look_at_aside(self, place: Place) -> bool:
        """Whether the bytes of a blob that was set aside were stored again."""
        try:
            again = await self.blobs.stat(place.space, place.digest) is not None
        except (Corrupt, StateConflict):
            again = False
        if again:
            await self._forget(place)
        else:
            await self._note(place.space, place.digest, dataset.DAMAGE_SET_ASIDE)
        return again

    async def _find_missing(self, scrub: ScrubRow) -> None:
        """Tells of blobs that versions name and that are not there at all."""
        async with self.database.read() as session:
            projects = await damage.projects(session)
        for project in projects:
            async with self.database.read() as session:
                missing = await damage.named(session, project)  # before the listing: what comes later is in that
            async for place in places(self.blobs.objects, project):
                missing.discard((place.space, place.digest))
            if missing:
                async with self.database.read() as session:
                    missing &= await damage.named(session, project)  # not forgotten meanwhile
            for space, digest in missing:
                scrub.damaged += 1
                await self._note(space, digest, dataset.DAMAGE_MISSING)

    async def _sweep(self) -> int:
        """Deletes what nobody can name any more; how many objects and spaces that were."""
        swept = 0
        for space in await spaces(self.blobs.objects):
            now = self.database.clock()
            if "/uploads/" in space:
                async with self.database.read() as session:
                    over = await damage.is_over(session, space) and not await holds_pieces(session, space)
                if over and await self._quiet(space):
                    await self.blobs.clear(space)
                    swept += 1
                    continue
            if assets.is_space(space):
                await self._doom_unnamed(space, now)
            for each in await left_behind(self.blobs.objects, space, now):
                await self.blobs.objects.remove(each.path)
                swept += 1
        return swept

    async def _doom_unnamed(self, space: str, now: datetime) -> None:
        """Old assets that nobody names go as any other: whoever names one before it is deleted keeps it."""
        old = [each.digest async for each in places(self.blobs.objects, space) if now - each.modified > LEFT_BEHIND]
        for start in range(0, len(old), assets.CHUNK):
            some = old[start : start + assets.CHUNK]
            await self.database.transact(partial(assets.doom, project=project_of(space), digests=some))

    async def _quiet(self, space: str) -> bool:
        now = self.database.clock()
        async for each in self.blobs.objects.list(space):
            if now - each.modified < _QUIET:
                return False
        return True

    async def _note(self, space: str, digest: str, what: dataset.Damage) -> None:
        await damage.record(self.database, space, digest, what)

    async def _forget(self, place: Place) -> None:
        name = damage.name_of(place.space, place.digest)
        async with self.database.read() as session:
            known = await DAMAGED.find(session, name=name)
        if known:
            await self.database.transact(lambda unit: damage.forget(unit, name))

    async def _scrub(self) -> ScrubRow | None:
        async with self.database.read() as session:
            return await session.get(ScrubRow, 1)

    async def _save(self, scrub: ScrubRow) -> None:
        values = scrub.model_dump()

        async def save(unit: Unit) -> None:
            await unit.session.merge(ScrubRow(**values))

        await self.database.transact(save)
