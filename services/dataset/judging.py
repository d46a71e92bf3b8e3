"""One upload and its check: what comes of it is stored, and said as the command that ends the upload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from functools import partial

from kit.blobs import BlobStore
from kit.rpc.errors import Corrupt, NotFound
from kit.store import Database, Unit, failpoint
from kit.telemetry import current_trace_id, get_log
from services.dataset import checks, commands, domain, parts, store
from services.dataset.staged import Staged
from sluice.dataset import v1 as dataset
from sluice.rows import ROWS_OF_TASK

#: A command that ends an upload.
End = Callable[[Unit, str], Awaitable[None]]

log = get_log(__name__)
#: How long a blob is kept that nobody names any more.
GRACE = timedelta(hours=1)


class StoredParts:
    """The blobs behind parts. Equal parts are one blob, so naming and deleting them never happen at the same time."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs
        self._naming = asyncio.Lock()

    async def keep(self, owner: str, place: int, part: checks.Part) -> None:
        """Names a part as the owner's, then stores it."""
        async with self._naming:
            row = parts.new_part(owner, place, part)
            await self._database.transact(lambda unit: parts.add(unit, row))
            await self._blobs.put(row.project, _once(part.content), digest=row.digest)

    async def drop(self, upload: str) -> None:
        """Takes the parts from an upload that makes no version."""
        for owner in (upload, parts.quarantine_of(upload)):
            await self._database.transact(partial(parts.drop, owner=owner))

    async def sweep(self) -> None:
        """Deletes blobs that were doomed a while ago and that nobody names: a check elsewhere that is cut off from the
        database, and does not know yet that it leads no more, has long been stopped by then.
        """
        async with self._database.read() as session:
            doomed = await parts.doomed(session, self._database.clock() - GRACE)
        for blob in doomed:
            async with self._naming:
                if not await self._database.transact(partial(parts.spare, blob=blob)):
                    await self._blobs.delete(blob.project, blob.digest)


async def judged(
    database: Database, stored: StoredParts, checker: checks.Checker, upload: dataset.Upload, source: Staged
) -> End:
    """Checks the rows, stores the parts, and returns the command that says what becomes of the upload."""
    digest = asyncio.create_task(source.digest())
    try:
        async with database.read() as session:
            parent = await store.DATASETS.get(session, domain.dataset_of(upload.name))
        events = checks.check(checker, _task(upload, parent), source)
        outcome = await _work_off(database, stored, upload.name, events)
        if await digest != upload.digest:
            return partial(commands.end_upload, judge=domain.fail_checksum)
    except checks.CheckFailed as failure:
        if failure.ours:
            return broken(upload.name, failure.why, failure.place)
        return partial(commands.end_upload, judge=partial(domain.fail_check, why=failure.why))
    except (Corrupt, NotFound):  # a piece is damaged, or was and is set aside: waiting brings nothing back
        return partial(commands.end_upload, judge=domain.fail_damaged)
    finally:
        digest.cancel()
        await asyncio.gather(digest, return_exceptions=True)
    if not outcome.accepted:
        return partial(commands.end_upload, judge=partial(domain.refuse, outcome=outcome))
    failpoint("dataset_before_version")
    return partial(commands.commit_version, outcome=outcome)


def _task(upload: dataset.Upload, parent: dataset.Dataset) -> checks.Task:
    return checks.Task(
        upload.file_name,
        ROWS_OF_TASK[parent.task_type],
        upload.size_bytes,
        columns=dict(upload.columns),
        fix=upload.fix,
        quarantine=upload.on_error == dataset.ON_ERROR_QUARANTINE,
    )


async def _work_off(
    database: Database, stored: StoredParts, name: str, events: AsyncGenerator[checks.Event]
) -> checks.Outcome:
    """Stores parts as they come and tells every second how far the check is."""
    place, told = 0, 0.0
    async with aclosing(events):
        async for event in events:
            match event:
                case checks.Part():
                    await stored.keep(name, place, event)
                    place += 1
                case checks.Aside():
                    await stored.keep(parts.quarantine_of(name), place, checks.Part(event.content, parts.NO_ROWS))
                    place += 1
                case checks.Progress() if (now := asyncio.get_running_loop().time()) - told >= 1.0:
                    told, note = now, partial(commands.note_progress, name=name, rows_checked=event.rows)
                    await database.transact(note)
                case checks.Outcome():
                    return event
    raise checks.CheckFailed("its check ended without an outcome", ours=True)


def broken(upload: str, cause: str, place: object) -> End:
    """The command for a fault of ours; it is told by its place, since its own words may hold content."""
    log.error("upload_check_broke", upload=upload, cause=cause, place=str(place))
    return partial(commands.end_upload, judge=partial(domain.fail_broken, trace_id=current_trace_id()))


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
