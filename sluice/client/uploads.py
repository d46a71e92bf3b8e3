"""One file on its way into a dataset: hashed, sent in chunks, checked; it keeps no state of its own.

An upload is found again by its request id, which follows from dataset and content: the same file continues
where it stopped, whichever process or day it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from kit.rpc.errors import Corrupt, Fault, Internal, Invalid, NotFound, StateConflict, Unavailable
from sluice.client import assets, demands
from sluice.client.acknowledged import Acknowledged
from sluice.client.chunks import MESSAGE_BYTES, chunks
from sluice.client.connection import Connection
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.rows.demands import NO_DEMANDS, Demands

#: Breaks in a row that bring no byte further before the upload gives up.
MAX_BREAKS = 6
#: Failed or expired uploads of the same content that are looked past for a fresh one.
MAX_GENERATIONS = 100
COMMIT_TIMEOUT_S = 600.0
#: RFC 9562 name space of the request ids of uploads.
UPLOADS = uuid.UUID("6f1b7c52-6a0f-4f0e-9c3b-6d3c1f0f7a10")
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.zst", ".tzst")
OVER = (dataset.UPLOAD_STATE_COMMITTED, dataset.UPLOAD_STATE_FAILED, dataset.UPLOAD_STATE_EXPIRED)


class UploadProgress(NamedTuple):
    """How far an upload is: bytes while hashing and sending, rows while checking (``total`` is then 0).

    Files beside the rows are hashed in the phase ``listing`` and sent in the phase ``assets``; ``receiving`` is a
    download.
    """

    phase: Literal["hashing", "listing", "assets", "sending", "checking", "receiving"]
    done: int
    total: int


OnProgress = Callable[[UploadProgress], None]


@dataclass(frozen=True)
class Wishes:
    """What is asked for beside the file itself; see ``Datasets.upload``."""

    append: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    fix: bool = False
    quarantine: bool = False
    demands: Demands = NO_DEMANDS
    assets: Path | None = None

    def __str__(self) -> str:
        """The same for the same wishes, and empty for none: the identity of an upload has it."""
        flags = [name for name in ("append", "fix", "quarantine") if getattr(self, name)]
        asked = demands.message(self.demands).SerializeToString(deterministic=True).hex()
        wishes = (*flags, *map(json.dumps, sorted(self.columns.items())), *([asked] if asked else []))
        return "".join(f"\n{each}" for each in wishes)


class RowsRefused(StateConflict):
    """Rows break the rules of the task type; ``upload.violations`` says row, field and repair."""

    default_reason = errors.ERROR_REASON_INVALID_ROWS

    def __init__(self, upload: dataset.Upload) -> None:
        count = sum(upload.violation_counts.values()) or len(upload.violations)
        said = upload.failure.message or "the file was refused"
        if upload.violations:
            first = upload.violations[0]
            what = f"expected {first.expected}, found {first.found}; {first.repair}"
            where = f"row {first.row}" if first.row else "the file as a whole"
            where += f", field `{first.field}`" if first.field else ""
            where = where if count == 1 else f"{count} places, first in {where}"
            said = f"`{upload.file_name}` was refused: wrong in {where}: {what}"
        super().__init__(said, reason=upload.failure.reason, resource=("Upload", upload.name))
        self.upload = upload


class Sender:
    """Sends files into datasets over one connection; ``progress`` hears how each goes."""

    def __init__(self, connection: Connection, progress: OnProgress, wishes: Wishes) -> None:
        self._connection = connection
        self._wishes = wishes
        self._progress = progress
        self._uploads = dataset.UploadServiceStub(connection.channel)
        self._versions = dataset.DatasetVersionServiceStub(connection.channel)

    async def send(self, of: dataset.Dataset, path: Path) -> dataset.DatasetVersion:
        """Sends ``path``, and what lies beside it, to the dataset ``of`` and returns the version it became.

        Raises Invalid for a file that is missing or empty, RowsRefused for rows that break the rules, Corrupt
        when the suite holds other bytes than were sent, Unavailable when it stays away.
        """
        size, digest = await asyncio.to_thread(_measure, path, self._progress)
        folder = self._wishes.assets
        beside = await assets.lying_in(folder, partial(self._told, "listing")) if folder else []
        upload = await self._open(of, path.name, size, digest, assets.identity(beside))
        if upload.state == dataset.UPLOAD_STATE_OPEN:
            await assets.send(self._connection, upload.name, beside, partial(self._told, "assets"))
            await self._send_all(upload, path)
        upload = await self._checked(upload.name)
        if upload.state != dataset.UPLOAD_STATE_COMMITTED:
            raise RowsRefused(upload)
        return await self._verified(upload.dataset_version, digest)

    def _told(self, phase: Literal["listing", "assets", "sending"], done: int, total: int) -> None:
        self._progress(UploadProgress(phase, done, total))

    async def _open(self, of: dataset.Dataset, file_name: str, size: int, digest: str, beside: str) -> dataset.Upload:
        """The upload of this content: an unfinished or finished one where there is one, else a new one."""
        asked, parent = demands.message(self._wishes.demands), of.name
        for generation in range(MAX_GENERATIONS):
            seed = f"{parent}\n{file_name}\n{digest}\n{generation}{self._wishes}{beside and chr(10) + beside}"
            request = dataset.CreateUploadRequest(
                parent=parent,
                file_name=file_name,
                size_bytes=size,
                digest=digest,
                request_id=str(uuid.uuid5(UPLOADS, seed)),
                append=self._wishes.append,
                columns=self._wishes.columns,
                fix=self._wishes.fix,
                on_error=dataset.ON_ERROR_QUARANTINE if self._wishes.quarantine else dataset.ON_ERROR_UNSPECIFIED,
                demands=asked if asked.ByteSize() else None,  # so that who asks nothing says nothing
            )
            try:
                created: dataset.CreateUploadResponse = await self._connection.call(self._uploads.CreateUpload, request)
            except Corrupt as damaged:  # the version that was made of it: sending it again stores the rows anew
                if self._wishes.append:
                    once = "appended again its rows would be there twice; upload all rows as one file, without append"
                    raise Corrupt(f"{damaged.message.partition(';')[0]}, and {once}") from damaged
                continue
            try:  # a repeat gives the first answer, so read what has become of it
                upload = await self._present(created.upload.name)
            except NotFound:
                continue
            over = upload.state in (dataset.UPLOAD_STATE_EXPIRED, dataset.UPLOAD_STATE_FAILED)
            is_present = upload.create_time.ToDatetime() >= of.update_time.ToDatetime()  # task types change
            if over and not (upload.violations and is_present):  # refused rows stay refused, the rest may go better
                continue
            return upload
        raise Unavailable(f"`{file_name}` failed too often; `sluice events tail --service dataset` tells more")

    async def _present(self, name: str) -> dataset.Upload:
        request = dataset.GetUploadRequest(name=name)
        answer: dataset.GetUploadResponse = await self._connection.call(self._uploads.GetUpload, request)
        return answer.upload

    async def _send_all(self, upload: dataset.Upload, path: Path) -> None:
        """Sends what is missing and commits; after a break it asks where to go on."""
        breaks = 0
        while upload.state == dataset.UPLOAD_STATE_OPEN:
            before = upload.committed_bytes
            try:
                await self._send_once(upload, path)
                return
            except Fault as fault:
                if isinstance(fault, StateConflict) and await self._is_on_its_way(upload.name):
                    return
                if not _passing(fault) or breaks >= MAX_BREAKS:
                    raise
            upload, breaks = await self._after_break(upload, breaks)
            breaks = 0 if upload.committed_bytes > before else breaks

    async def _is_on_its_way(self, name: str) -> bool:
        """Whether another process, which sends the same file, was quicker."""
        state = (await self._present(name)).state
        return state in (dataset.UPLOAD_STATE_VALIDATING, dataset.UPLOAD_STATE_COMMITTED)

    async def _after_break(self, upload: dataset.Upload, breaks: int) -> tuple[dataset.Upload, int]:
        """The upload as soon as somebody tells of it, and how many breaks in a row there were."""
        while True:
            await asyncio.sleep(min(0.1 * 2**breaks, 3.0))
            breaks += 1
            try:
                return await self._present(upload.name), breaks
            except Unavailable:
                if breaks >= MAX_BREAKS:
                    raise

    async def _send_once(self, upload: dataset.Upload, path: Path) -> None:
        if self._wishes.demands.tokenizer and not upload.committed_bytes:  # which comes before any byte of the file
            pieces = demands.tokenizer_pieces(upload.name, self._wishes.demands.tokenizer)
            await self._connection.send(self._uploads.WriteTokenizer, _as_they_come(pieces))
        if upload.committed_bytes < upload.size_bytes:
            async with Acknowledged(upload.committed_bytes, partial(self._stored, upload.name)) as acknowledged:
                sending = chunks(upload, path, partial(self._told, "sending"), acknowledged.room)
                await self._connection.send(self._uploads.WriteUpload, sending)
        request = dataset.CommitUploadRequest(name=upload.name)
        await self._connection.call(self._uploads.CommitUpload, request, timeout_s=COMMIT_TIMEOUT_S)

    async def _stored(self, name: str) -> AsyncGenerator[int]:
        """How many bytes are stored, as it changes, while more are taken."""
        async with aclosing(self._snapshots(name)) as snapshots:
            async for upload in snapshots:
                if upload.state != dataset.UPLOAD_STATE_OPEN:
                    return
                yield upload.committed_bytes

    def _snapshots(self, name: str) -> AsyncGenerator[dataset.Upload]:
        """The upload as it changes, until it is over."""
        request = dataset.WatchUploadRequest(name=name)

        async def once() -> AsyncGenerator[dataset.Upload]:
            async for answer in self._connection.stream(self._uploads.WatchUpload, request):
                yield answer.upload

        return self._connection.follow(once, lambda item: item.state in OVER)

    async def _checked(self, name: str) -> dataset.Upload:
        """The upload when its checks are over."""
        last = dataset.Upload(name=name)
        async for upload in self._snapshots(name):
            self._progress(UploadProgress("checking", upload.rows_checked, 0))
            last = upload
        return last

    async def _verified(self, name: str, digest: str) -> dataset.DatasetVersion:
        request = dataset.GetDatasetVersionRequest(name=name)
        answer: dataset.GetDatasetVersionResponse = await self._connection.call(
            self._versions.GetDatasetVersion, request
        )
        version = answer.dataset_version
        if version.source_digest != digest:
            raise Corrupt(f"`{name}` was made of {version.source_digest}, but {digest} was sent; upload the file again")
        return version


def check_file(path: Path, folder: Path | None = None) -> None:
    """Raises Invalid for a path that is no file, one without a byte, and an archive with a folder beside it."""
    if folder is not None and path.name.lower().endswith(ARCHIVES):
        raise Invalid(f"`{path}` has its images in it; give a folder of assets beside a file of rows alone")
    check_path(path)
    if not path.stat().st_size:
        raise Invalid(f"`{path}` is empty; a dataset needs at least one row")


def check_path(path: Path) -> None:
    """Raises Invalid for a path that is no file."""
    if path.is_dir():
        raise Invalid(f"`{path}` is a folder; pack it as .zip or .tar")
    if not path.is_file():
        raise Invalid(f"there is no file `{path}`; give the path of a file with rows, such as rows.jsonl")


def _measure(path: Path, progress: OnProgress) -> tuple[int, str]:
    """Size in bytes and `sha256:<hex>` of a file."""
    check_file(path)
    size, done, digest = path.stat().st_size, 0, hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(MESSAGE_BYTES):
                digest.update(chunk)
                done += len(chunk)
                progress(UploadProgress("hashing", done, size))
    except OSError as error:
        raise Invalid(f"`{path}` cannot be read ({error.strerror}); check its permissions") from error
    return size, f"sha256:{digest.hexdigest()}"


def _passing(fault: Fault) -> bool:
    """Whether going on from `committed_bytes` can help.

    A refusal in mid-stream may reach us as an internal error of gRPC itself, which has no details of ours.
    """
    broken = isinstance(fault, Internal) and "Internal error from Core" in fault.message
    return isinstance(fault, Unavailable) or broken or fault.reason == errors.ERROR_REASON_WRONG_OFFSET


async def _as_they_come(
    pieces: Iterator[dataset.WriteTokenizerRequest],
) -> AsyncIterator[dataset.WriteTokenizerRequest]:
    for piece in pieces:
        yield piece
