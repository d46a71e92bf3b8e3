"""One upload and its check: what comes of it is stored, and said as the command that ends the upload."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from datetime import timedelta
from functools import partial
from itertools import accumulate

from kit.blobs import BlobStore
from kit.rpc.errors import Corrupt, NotFound
from kit.rpc.names import project_of
from kit.store import Database, Unit, failpoint
from kit.telemetry import current_trace_id, get_log
from services.dataset import checks, commands, parts, store
from services.dataset.domain import schema_of
from services.dataset.erasure import domain as erasures
from services.dataset.media import assets
from services.dataset.media.shelves import BesideShelf, Keeping
from services.dataset.uploads import demands
from services.dataset.uploads import domain as uploads
from services.dataset.uploads.staged import Staged, Stored
from sluice.dataset import v1 as dataset
from sluice.rows.deidentify import Policy

#: A command that ends an upload, of a unit and its name; one that asks for it is also given how many rows are `new`.
End = Callable[..., Awaitable[None]]

log = get_log(__name__)
#: How long a blob is kept that nobody names any more.
GRACE = timedelta(hours=1)


class StoredParts:
    """The blobs behind parts. Equal parts are one blob, so naming and deleting them never happen at the same time."""

    def __init__(self, database: Database, blobs: BlobStore, grace: timedelta = GRACE) -> None:
        self._database = database
        self._blobs = blobs
        self._grace = grace
        self._naming = asyncio.Lock()
        self._secrets = asyncio.Lock()

    async def settled(self) -> None:
        """Returns when what was being deleted is deleted: what has been named before is not deleted after this."""
        async with self._naming:
            return

    def keeping(self, upload: str) -> Keeping:
        """What takes in the assets that the check of an upload finds."""
        return Keeping(self._database, self._blobs, upload, self.settled)

    def shelf(self, upload: str) -> BesideShelf:
        """The assets that came beside an upload."""
        return BesideShelf(self._database, self._blobs, upload)

    async def keep_asset(self, upload: str, digest: str, pieces: AsyncIterator[bytes]) -> assets.AssetRow:
        """Stores an asset that an upload has named; it is one of the dataset's when it is listed.

        Raises Invalid (CHECKSUM_MISMATCH), and what `pieces` do.
        """
        project = project_of(upload)
        await self.settled()
        blob = await self._blobs.put(assets.space_of(project), pieces, digest=digest)
        parent = uploads.dataset_of(upload)
        return assets.AssetRow(parent=parent, digest=digest, project=project, size_bytes=blob.size)

    async def list_assets(self, stored: list[assets.AssetRow]) -> None:
        """Puts stored assets down as those of their dataset, and empties the list."""
        if stored:
            rows = [row.model_copy() for row in stored]
            await self._database.transact(partial(assets.listed, parent=rows[0].parent, found=rows))
            stored.clear()

    async def keep(self, owner: str, place: int, part: checks.Part) -> None:
        """Names a part as the owner's, and the assets in it as the part's, then stores it."""
        async with self._naming:
            row = await asyncio.to_thread(parts.new_part, owner, place, part)

            async def name(unit: Unit) -> None:
                await parts.add(unit, row)
                bringer = owner if "/uploads/" in owner else ""
                await assets.name(unit, row.project, row.digest, part.assets, bringer)

            await self._database.transact(name)
            failpoint("dataset_part_named")
            await self._blobs.put(row.project, _once(part.content), digest=row.digest)
            failpoint("dataset_part_stored")

    async def replace(self, owner: str, content: bytes) -> None:
        """Names a blob without rows as all that the owner has, then stores it."""
        await self._database.transact(partial(parts.drop, owner=owner))
        await self.keep(owner, 0, checks.Part(content, parts.NO_ROWS))

    async def secret(self, owner: str) -> bytes:
        """Random bytes that are the owner's for good; made when they are first asked for. Raises Corrupt."""
        async with self._secrets:
            async with self._database.read() as session:
                found = await parts.of(session, owner)
            with suppress(NotFound):  # named, and never stored
                for blob in found:
                    return b"".join([piece async for piece in self._blobs.open(blob.project, blob.digest)])
            made = secrets.token_bytes(32)
            await self.replace(owner, made)
            return made

    async def drop(self, upload: str) -> None:
        """Takes the parts from an upload that makes no version."""
        for owner in (upload, parts.quarantine_of(upload)):
            await self._database.transact(partial(parts.drop, owner=owner))

    async def sweep(self) -> None:
        """Deletes blobs that were doomed a while ago and that nobody names: a check elsewhere that is cut off from the
        database, and does not know yet that it leads no more, has long been stopped by then.
        """
        async with self._database.read() as session:
            doomed = await parts.doomed(session, self._database.clock() - self._grace)
        await self._delete(doomed)

    async def shred(self, project: str) -> None:
        """Deletes at once what was doomed in a project until now: rows that are forgotten do not wait."""
        until = self._database.clock()
        while True:
            async with self._database.read() as session:
                doomed = await parts.doomed(session, until, project)
            if not doomed:
                return
            await self._delete(doomed)

    async def _delete(self, doomed: Sequence[parts.DoomedRow]) -> None:
        for blob in doomed:
            async with self._naming:
                named = await self._database.transact(partial(_spare, blob=blob))
                if not named:
                    await self._blobs.delete(blob.project, blob.digest)
                    failpoint("dataset_doomed_deleted")
                    await self._database.transact(partial(assets.release, blob=blob))
                await self._database.transact(partial(parts.strike, blob=blob))  # last: else a crash would leave it


async def _spare(unit: Unit, blob: parts.DoomedRow) -> bool:
    """Whether somebody names a doomed blob after all."""
    return await (assets.spare(unit, blob) if assets.is_space(blob.project) else parts.is_named(unit.session, blob))


async def judged(
    database: Database, stored: StoredParts, checker: checks.Checker, upload: dataset.Upload, source: Staged
) -> End:
    """Checks the rows, stores the parts, and returns the command that says what becomes of the upload.

    Raises CheckKilled when the system ended the check: the next may get through.
    """
    digest = asyncio.create_task(source.digest())
    try:
        async with database.read() as session:
            parent = await store.DATASETS.get(session, uploads.dataset_of(upload.name))
            beside = await assets.brings(session, upload.name) is not None
            forgotten = await erasures.forgotten(session, parent.name)
            compared = f"{parent.name}/versions/{parent.latest_version}" if _appends(upload, parent) else ""
            before = await parts.of(session, compared) if compared else []
        task = _task(upload, parent, await source.tokenizer_bytes(), beside)
        source.follow(*(Stored(part.project, part.digest, part.size_bytes, may_go=True) for part in before))
        task.before = _stretches(before)
        task.forgotten = forgotten
        if task.demands.deidentify == Policy.MASK:
            task.key = await stored.secret(parts.pseudonyms_of(parent.name))
        events = checks.run(checker, task, source, stored.shelf(upload.name))
        outcome = await _work_off(database, stored, upload.name, events)
        found = await digest
        if upload.digest and found != upload.digest:
            return partial(commands.end_upload, judge=uploads.fail_checksum)
    except checks.CheckKilled:
        raise
    except checks.CheckFailed as failure:
        if failure.ours:
            return broken(upload.name, failure.why, failure.place)
        return partial(commands.end_upload, judge=partial(uploads.fail_check, why=failure.why))
    except (Corrupt, NotFound):  # a piece is damaged, or was and is set aside: waiting brings nothing back
        return partial(commands.end_upload, judge=uploads.fail_damaged)
    finally:
        digest.cancel()
        await asyncio.gather(digest, checker.end(), return_exceptions=True)  # it may not have been given its task
    if not outcome.accepted:
        return partial(commands.end_upload, judge=partial(uploads.refuse, outcome=outcome))
    failpoint("dataset_before_version")
    done = demands.at_least(upload.demands, parent).deidentify
    return partial(commands.commit_version, outcome=outcome, digest=found, compared=compared, deidentified=done)


def _appends(upload: dataset.Upload, parent: dataset.Dataset) -> bool:
    """Whether there is a version that rows are appended to."""
    return upload.append and bool(parent.latest_version)


def _stretches(found: Sequence[parts.PartRow]) -> list[checks.Stretch]:
    starts = accumulate((part.rows_of() for part in found), initial=0)
    return [checks.Stretch(part.size_bytes, start) for part, start in zip(found, starts, strict=False)]


def _task(upload: dataset.Upload, parent: dataset.Dataset, tokenizer_bytes: int, beside: bool) -> checks.Task:
    return checks.Task(
        upload.file_name,
        schema_of(parent),
        upload.size_bytes,
        columns=dict(upload.columns),
        loose=bool(upload.feed or upload.columns_from),
        fix=upload.fix,
        quarantine=upload.on_error == dataset.ON_ERROR_QUARANTINE,
        demands=demands.of(demands.at_least(upload.demands, parent)),
        tokenizer_bytes=tokenizer_bytes,
        beside=beside,
    )


async def _work_off(
    database: Database, stored: StoredParts, name: str, events: AsyncGenerator[checks.Event]
) -> checks.Outcome:
    """Stores parts as they come and tells every second how far the check is."""
    place, told = 0, 0.0
    async with stored.keeping(name) as keeping, aclosing(events):
        async for event in events:
            match event:
                case checks.Asset():
                    await keeping.add(event)
                case checks.Part():
                    await keeping.flush()  # what the part names
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
    return partial(commands.end_upload, judge=partial(uploads.fail_broken, trace_id=current_trace_id()))


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
