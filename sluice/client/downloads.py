"""The files of a model version, or of a job, on their way out of the suite; what is in them is not known here.

A file is written beside its name (`….part`) and gets it once its digest is right. So a download that broke off goes on
where it stopped, in this process or a later one, and a folder never holds a file that is not whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from io import BufferedRandom
from pathlib import Path

from kit.blobs.artifacts import check_manifest
from kit.rpc.errors import Corrupt, Invalid
from sluice.client.connection import Connection
from sluice.client.uploads import OnProgress, UploadProgress
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

PIECE_BYTES = 1 << 20
OnBytes = Callable[[int], None]
#: Gives the bytes of the file of a path, from an offset on.
Read = Callable[[str, int], AsyncIterator[bytes]]


async def fetch(
    connection: Connection, version: registry.ModelVersion, folder: Path, progress: OnProgress | None = None
) -> None:
    """Writes the files of a version below ``folder``, made 0700 where it is new; those that lie there stay.

    Raises Invalid where another file is in the way, Denied without the role `downloader`, Corrupt for bytes that do
    not have their digest, Unavailable when the suite stays away.
    """
    stub = registry.ModelVersionServiceStub(connection.channel)

    async def read(path: str, offset: int) -> AsyncIterator[bytes]:
        request = registry.ReadModelVersionFileRequest(name=version.name, path=path, offset=offset)
        async for answer in connection.stream(stub.ReadModelVersionFile, request):
            yield answer.data

    await _fetch(connection, version.name, version.artifact, read, folder, progress)


async def fetch_job(
    connection: Connection, job: trainer.TrainingJob, folder: Path, progress: OnProgress | None = None
) -> None:
    """Writes the files that a job left below ``folder``, as `fetch` does those of a version."""
    stub = trainer.TrainingJobServiceStub(connection.channel)

    async def read(path: str, offset: int) -> AsyncIterator[bytes]:
        request = trainer.ReadTrainingJobFileRequest(name=job.name, path=path, offset=offset)
        async for answer in connection.stream(stub.ReadTrainingJobFile, request):
            yield answer.data

    await _fetch(connection, job.name, job.result.artifact, read, folder, progress)


async def _fetch(
    connection: Connection,
    name: str,
    artifact: types.Artifact,
    read: Read,
    folder: Path,
    progress: OnProgress | None,
) -> None:
    check_manifest(artifact)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    total, done = sum(file.size_bytes for file in artifact.files), 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(UploadProgress("receiving", done, total))

    told(0)
    for file in artifact.files:
        await _fetch_file(connection, name, read, file, folder / file.path, told)


async def _fetch_file(
    connection: Connection, name: str, read: Read, file: types.ArtifactFile, target: Path, told: OnBytes
) -> None:
    if os.path.lexists(target):
        if not target.is_file() or await asyncio.to_thread(_digest, target) != file.digest:
            raise Invalid(f"`{target}` is there already, with other content; give an empty folder")
        told(file.size_bytes)
        return
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with _opened(part) as out:
        digest = await asyncio.to_thread(_taken_up, out, file.size_bytes)
        told(out.tell())
        await _receive(connection, read, file, out, digest, told)
        await asyncio.to_thread(_keep, out)
    if f"sha256:{digest.hexdigest()}" != file.digest:
        part.unlink()
        raise Corrupt(f"`{file.path}` of `{name}` did not arrive as it was stored; download it again")
    part.rename(target)


async def _receive(
    connection: Connection,
    read: Read,
    file: types.ArtifactFile,
    out: BufferedRandom,
    digest: hashlib._Hash,
    told: OnBytes,
) -> None:
    """Appends what is not there yet; a stream that breaks is opened again where it broke."""
    if out.tell() == file.size_bytes:
        return
    async for data in connection.follow(lambda: read(file.path, out.tell()), lambda _: out.tell() >= file.size_bytes):
        await asyncio.to_thread(_append, out, digest, data)
        told(len(data))


def _opened(part: Path) -> BufferedRandom:
    """The file as far as it has come, for reading and writing, by its owner alone."""
    return os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b")


def _taken_up(out: BufferedRandom, size: int) -> hashlib._Hash:
    """The digest of what came before; the file stands at its end, or at its start where it had more than its size."""
    if os.fstat(out.fileno()).st_size > size:
        out.truncate(0)
    return hashlib.file_digest(out, "sha256")


def _append(out: BufferedRandom, digest: hashlib._Hash, data: bytes) -> None:
    out.write(data)
    digest.update(data)


def _keep(out: BufferedRandom) -> None:
    out.flush()
    os.fsync(out.fileno())


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
