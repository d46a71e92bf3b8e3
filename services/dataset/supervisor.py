"""Checks complete uploads and drops unfinished ones: a loop over the database, which alone is the truth."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kit.blobs import BlobStore
from kit.rpc.errors import Corrupt, Fault, NotFound
from kit.rpc.names import project_of
from kit.store import Database, Unit, failpoint, leading
from kit.telemetry import current_trace_id, get_log
from services.dataset import commands, domain, store
from sluice.dataset import v1 as dataset
from sluice.rows import Outcome, convert

#: A command that ends an upload.
End = Callable[[Unit, str], Awaitable[None]]

log = get_log(__name__)
LOOK_S = 1.0


class UploadSupervisor:
    """Turns uploads in VALIDATING into versions, or into refusals that say which row and why."""

    def __init__(self, database: Database, blobs: BlobStore, folder: Path) -> None:
        """``folder`` holds decrypted rows while they are checked, and nothing else."""
        self.database = database
        self.blobs = blobs
        self.folder = folder

    async def run(self) -> None:
        """Works until cancelled; what an earlier process left half done is done again.

        Of several processes on one database only one works.
        """
        while True:
            try:
                async with leading(self.database, "dataset") as leadership:
                    await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)
                    self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                    while True:
                        seen = self.database.changed.count
                        await leadership.check()
                        await self.step()
                        await self.database.changed.wait(seen, LOOK_S)
            except (Fault, OSError) as error:
                log.warning("dataset_waits", reason=_reason(error))
            await asyncio.sleep(LOOK_S)

    async def step(self) -> None:
        """One look at everything."""
        async with self.database.read() as session:
            complete = await store.UPLOADS.find(session, state=dataset.UPLOAD_STATE_VALIDATING)
            forgotten = await store.open_since(session, self.database.clock() - domain.UPLOAD_LIVES)
        for upload in complete:
            await self._guarded(upload.name, self._check(upload))
        for upload in forgotten:
            await self._guarded(upload.name, self._end(upload.name, commands.expire_upload))
        async with self.database.read() as session:
            leftovers = await store.leftovers(session)
        for name in leftovers:
            await self._guarded(name, self._drop_pieces(name))

    async def _guarded(self, upload: str, work: Coroutine[Any, Any, None]) -> None:
        """A fault of the machine (disk full, database away) leaves an upload for the next look."""
        try:
            await work
        except (Fault, OSError) as error:
            log.warning("upload_put_off", upload=upload, reason=_reason(error))
            await asyncio.sleep(LOOK_S)

    async def _check(self, upload: dataset.Upload) -> None:
        """Settles one upload."""
        try:
            with TemporaryDirectory(dir=self.folder) as scratch:
                command = await self._judge(upload, Path(scratch))
        except (Fault, OSError):
            raise
        except Exception as error:  # else this process would die of the same upload again and again
            command = self._broke(upload, error)
        await self._end(upload.name, command)  # nothing readable is left when others hear of it

    def _broke(self, upload: dataset.Upload, error: Exception) -> End:
        """Fails an upload for a fault of ours. The error's own words may hold content and are not logged."""
        place = traceback.extract_tb(error.__traceback__)[-1]
        log.error(
            "upload_check_broke", upload=upload.name, cause=type(error).__name__, file=place.filename, line=place.lineno
        )
        return partial(commands.end_upload, judge=partial(domain.fail_broken, trace_id=current_trace_id()))

    async def _judge(self, upload: dataset.Upload, scratch: Path) -> End:
        """Reads and checks the rows, stores them when they are right, and returns the command that says so."""
        source, rows = scratch / "source", scratch / "rows"
        try:
            digest = await self._gather(upload.name, source)
        except (Corrupt, NotFound):  # a piece is damaged, or was and is set aside: waiting brings nothing back
            return partial(commands.end_upload, judge=domain.fail_damaged)
        if digest != upload.digest:
            return partial(commands.end_upload, judge=domain.fail_checksum)
        async with self.database.read() as session:
            parent = await store.DATASETS.get(session, domain.dataset_of(upload.name))
        outcome = await self._convert(upload, source, parent.task_type, rows)
        if outcome.counts or not outcome.row_count:
            return partial(commands.end_upload, judge=partial(domain.refuse, outcome=outcome))
        await self.blobs.put(project_of(upload.name), rows, digest=outcome.digest)
        failpoint("dataset_before_version")
        return partial(commands.commit_version, outcome=outcome)

    async def _convert(self, upload: dataset.Upload, source: Path, task_type: str, target: Path) -> Outcome:
        """Checks the rows in a thread and tells every second how far it has come."""
        checked = 0

        def progress(rows: int) -> None:
            nonlocal checked
            checked = rows

        def work() -> Outcome:
            with target.open("wb") as sink:
                return convert(source, upload.file_name, task_type, sink, progress)

        job = asyncio.create_task(asyncio.to_thread(work))
        while not (await asyncio.wait([job], timeout=1.0))[0]:
            await self.database.transact(lambda unit: commands.note_progress(unit, upload.name, checked))
        return job.result()

    async def _gather(self, upload: str, target: Path) -> str:
        """Writes the pieces one after the other and returns the digest of the whole."""
        async with self.database.read() as session:
            pieces = await store.pieces(session, upload)
        digest = hashlib.sha256()
        with target.open("wb") as out:
            for each in pieces:
                async for data in self.blobs.open(domain.staging(upload), each.digest):
                    digest.update(data)
                    out.write(data)
        return f"sha256:{digest.hexdigest()}"

    async def _end(self, upload: str, command: End) -> None:
        await self.database.transact(lambda unit: command(unit, upload))

    async def _drop_pieces(self, upload: str) -> None:
        """Deletes what an upload that is over was gathered in: first the bytes, then what is known of them."""
        async with self.database.read() as session:
            pieces = await store.pieces(session, upload)
        for digest in {piece.digest for piece in pieces}:
            await self.blobs.delete(domain.staging(upload), digest)
        failpoint("dataset_pieces_deleted")
        await self.database.transact(lambda unit: store.drop_pieces(unit, upload))


def _reason(error: Fault | OSError) -> str:
    return error.reason_name if isinstance(error, Fault) else str(error.strerror)
