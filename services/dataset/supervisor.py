"""Checks complete uploads and drops unfinished ones: a loop over the database, which alone is the truth."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from kit.blobs import BlobStore
from kit.rpc.errors import Corrupt, Fault, NotFound, StateConflict
from kit.rpc.names import project_of
from kit.store import Database, Unit, failpoint
from kit.telemetry import get_log
from services.dataset import commands, domain, store
from sluice.dataset import v1 as dataset
from sluice.rows import Outcome, convert

#: A command that ends an upload and returns the pieces that are needed no more.
End = Callable[[Unit, str], Awaitable[list[str]]]

log = get_log(__name__)


class UploadSupervisor:
    """Turns uploads in VALIDATING into versions, or into refusals that say which row and why."""

    def __init__(self, database: Database, blobs: BlobStore, folder: Path) -> None:
        """``folder`` holds decrypted rows while they are checked, and nothing else."""
        self.database = database
        self.blobs = blobs
        self.folder = folder

    async def run(self) -> None:
        """Works until cancelled; what an earlier process left half done is done again."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700, parents=True)
        while True:
            seen = self.database.changed.count
            for upload in await self._in(dataset.UPLOAD_STATE_VALIDATING):
                await self._check(upload)
            for upload in await self._in(dataset.UPLOAD_STATE_OPEN):
                if upload.expire_time.ToDatetime(UTC) < self.database.clock():
                    with suppress(StateConflict):  # committed in the very last moment
                        await self._end(upload.name, commands.expire_upload)
            await self.database.changed.wait(seen, timeout_s=30.0)

    async def _in(self, state: dataset.UploadState) -> list[dataset.Upload]:
        async with self.database.read() as session:
            return await store.UPLOADS.find(session, state=state)

    async def _check(self, upload: dataset.Upload) -> None:
        """Settles one upload; a fault of the machine (disk full, database away) leaves it for the next round."""
        try:
            with TemporaryDirectory(dir=self.folder) as scratch:
                command = await self._judge(upload, Path(scratch))
            await self._end(upload.name, command)  # nothing readable is left when others hear of it
        except (Fault, OSError) as error:
            reason = error.reason_name if isinstance(error, Fault) else error.strerror
            log.warning("upload_check_put_off", upload=upload.name, reason=reason)
            await asyncio.sleep(1.0)

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
        """Runs the command that ends an upload, then drops its pieces."""
        for digest in await self.database.transact(lambda unit: command(unit, upload)):
            await self.blobs.delete(domain.staging(upload), digest)
