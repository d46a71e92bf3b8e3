"""Makes uploads of rows that have waited long enough in feeds: a loop over the database, which alone is the truth."""

from __future__ import annotations

import asyncio
from functools import partial

from kit.blobs import BlobStore
from kit.rpc.errors import Corrupt, Fault, NotFound
from kit.store import Database, failpoint, leading
from kit.telemetry import get_log
from services.dataset import store
from services.dataset.feeds import commands as feeds_commands
from services.dataset.feeds import store as feeds_store
from services.dataset.uploads import domain as uploads
from sluice.errors import v1 as errors

log = get_log(__name__)
LOOK_S = 1.0
#: Each batch of rows is a change; a look at each would cost as much as the batch.
PAUSE_S = 0.2


class FeedSupervisor:
    """Hands over what is due; what comes of it is the matter of the upload supervisor."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self.database = database
        self.blobs = blobs
        #: Fired when a feed may have become due; pieces of uploads come too often to look at each time.
        self.changed = database.changed_in(feeds_store.FeedRow.__tablename__)

    async def run(self) -> None:
        """Works until cancelled. Of several processes on one database only one works."""
        while True:
            try:
                async with leading(self.database, "feeds") as leadership:
                    while True:
                        seen = self.changed.count
                        await leadership.check()
                        await self.step()
                        await asyncio.sleep(PAUSE_S)
                        await self.changed.wait(seen, LOOK_S)
            except (Fault, OSError) as error:
                log.warning("feeds_wait", reason=_reason(error))
            await asyncio.sleep(LOOK_S)

    async def step(self) -> None:
        """One look at everything."""
        async with self.database.read() as session:
            due = await feeds_store.due(session, self.database.clock())
        for name in due:
            try:
                await self._mend(name)
                failpoint("feed_due")
                await self.database.transact(partial(feeds_commands.hand_over, name=name))
                failpoint("feed_handed_over")
            except (Fault, OSError) as error:  # the others go on
                log.warning("feed_put_off", feed=name, reason=_reason(error))

    async def _mend(self, name: str) -> None:
        """Leaves out what is damaged of the rows that wait, where an upload of them failed of it: the others go on."""
        async with self.database.read() as session:
            feed = await feeds_store.FEEDS.get(session, name)
            if feed.failure.reason != errors.ERROR_REASON_CORRUPT_BLOB:
                return
            pieces = await store.pieces(session, feed.next_upload)
        lost = {piece.start: piece for piece in pieces if not await self._is_whole(piece)}
        if lost:
            rows = sum(piece.row_count for piece in lost.values())
            log.error("feed_rows_lost", feed=name, rows=rows, blobs=[piece.digest for piece in lost.values()])
        drop = partial(feeds_commands.drop_lost, name=name, upload=feed.next_upload, starts=set(lost))
        await self.database.transact(drop)

    async def _is_whole(self, piece: store.PieceRow) -> bool:
        try:
            async for _ in self.blobs.open(uploads.space_of(piece), piece.digest):
                pass
        except (Corrupt, NotFound):
            return False
        return True


def _reason(error: Fault | OSError) -> str:
    return error.reason_name if isinstance(error, Fault) else str(error.strerror)
