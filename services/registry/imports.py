"""Weights that come over the wire: file by file into a private folder, checked there, then into the blob store.

A file is stored when it is whole and sound, so that an import which broke off need not send it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from kit.blobs import BlobStore, manifest_digest
from kit.blobs.artifacts import check_file_name
from kit.rpc.errors import Corrupt, Invalid, StateConflict
from kit.rpc.names import id_of, parent_of, project_of
from sluice import weights
from sluice.errors import v1 as errors
from sluice.fewbits import few_bits
from sluice.registry import v1 as registry
from sluice.types import v1 as types

#: Told of each file before it is stored, and whether it was not there: what was told is not swept away (`sweeping`).
Note = Callable[[types.ArtifactFile, bool], Awaitable[None]]


async def receive(
    header: registry.ImportHeader,
    requests: AsyncIterator[registry.ImportModelVersionRequest],
    folder: Path,
    blobs: BlobStore,
    note: Note,
) -> str:
    """Writes each file that follows a header into ``folder``, checks it, stores it and removes it there.

    Returns how the files hold their weights where that is in few bits, else nothing.
    Raises Invalid: CHECKSUM_MISMATCH when bytes are not those announced, MODEL_REJECTED when a file is no weights, or
    all together are not those of their config.
    """
    check_header(header)
    chunks, content = _Chunks(requests), _Content(blobs, project_of(header.parent))
    for file in header.artifact.files:
        if file.digest in header.stored_digests:
            await content.take_in_stored(file)
            continue
        target = folder / "file"
        digest = hashlib.sha256()
        with target.open("wb") as out:
            async for data in chunks.take(file.size_bytes):
                digest.update(data)
                out.write(data)
        if f"sha256:{digest.hexdigest()}" != file.digest:
            raise _mismatch(f"`{file.path}` does not have the digest that was announced")
        await asyncio.to_thread(content.take_in, file, target)
        await note(file, await _is_absent(blobs, content.project, file.digest))
        await blobs.put(content.project, target, digest=file.digest)
        target.unlink()
    if not await chunks.is_over():
        raise _mismatch("more bytes came than the header announced")
    await asyncio.to_thread(weights.check_whole, content.configs, content.shards)
    return few_bits(content.configs.get("config.json", {}))


def check_header(header: registry.ImportHeader) -> None:
    """Raises Invalid for a list of files that are not those of a folder of weights."""
    if header.artifact.kind == types.ARTIFACT_KIND_ADAPTER and not header.base_model_version:
        raise Invalid(
            "an adapter needs base_model_version, the version that it was trained on; name it",
            violations=[("header.base_model_version", "is missing")],
        )
    if header.artifact.kind == types.ARTIFACT_KIND_PACKAGE:
        raise Invalid(
            "a package to take away is no version of a model; import weights or an adapter",
            violations=[("header.artifact.kind", "is ARTIFACT_KIND_PACKAGE")],
        )
    paths = [file.path for file in header.artifact.files]
    folders = {str(folder) for path in paths for folder in Path(path).parents}
    if len(set(paths)) < len(paths) or not folders.isdisjoint(paths):
        raise Invalid(
            "the header names a file twice, or one path as a file and as a folder; name each file once",
            violations=[("header.artifact.files", "are not the files of a folder")],
        )
    for file in header.artifact.files:
        check_file_name(file.path)
        weights.check_size(file.path, file.size_bytes)
    if manifest_digest(header.artifact.files) != header.artifact.digest:
        raise _mismatch("the list of files does not have the digest that was announced")


def repeats(version: registry.ModelVersion, header: registry.ImportHeader) -> bool:
    """Whether an import would make what a version is: the same files, and of an adapter those of the same base."""
    return version.artifact.digest == header.artifact.digest and version.base_model_version == header.base_model_version


def repeated(same: Sequence[registry.ModelVersion], header: registry.ImportHeader) -> registry.ModelVersion:
    """Which of the versions with these weights an import means. Raises StateConflict where none is of its rows.

    An evaluation by itself comes with a new version alone, so an import that asked for it would never get it.
    """
    rows = header.dataset_version
    for version in same:
        if not rows or version.lineage.dataset_version == rows:
            return version
    there = same[0].lineage.dataset_version
    raise StateConflict(
        f"`{same[0].name}` has these weights already, with {f'the rows `{there}`' if there else 'no rows'} to be "
        f"judged on; import them as another model to have them judged on `{rows}`, or evaluate this version by hand: "
        "sluice eval create",
        resource=("ModelVersion", same[0].name),
    )


def name_source(version: registry.ModelVersion, header: registry.ImportHeader) -> bool:
    """Writes what the weights are called elsewhere into a version that does not say; whether that changed it.

    Raises StateConflict where they have another id there: by which a version is found must not depend on who was last.
    """
    if header.source_id in ("", version.source_id):
        return False
    if version.source_id:
        known = f"{id_of(parent_of(version.name))}@{version.version}"
        raise StateConflict(
            f"`{known}` has these weights already, under the id `{version.source_id}`: name that one, or import them "
            f"as another model to have them as `{header.source_id}` too; no file is sent again",
            resource=("ModelVersion", version.name),
        )
    version.source_id = header.source_id
    return True


class _Content:
    """What the files of a model say of it, gathered while they come."""

    def __init__(self, blobs: BlobStore, project: str) -> None:
        self.project = project
        self.configs: dict[str, dict[str, object]] = {}
        self.shards: dict[str, weights.Tensors] = {}
        self._blobs = blobs

    def take_in(self, file: types.ArtifactFile, at: Path) -> None:
        """Looks at a file here. Raises Invalid (MODEL_REJECTED)."""
        name = file.path
        with at.open("rb") as content:
            if name.endswith(".safetensors"):
                self.shards[name] = weights.tensors_of(content, file.size_bytes, name)
                return
            weights.check_beginning(content.read(4), name)
            if name.endswith(".json"):
                content.seek(0)
                self._take_in_config(content.read(), name)

    async def take_in_stored(self, file: types.ArtifactFile) -> None:
        """Looks at a file that was checked when it was stored. Raises StateConflict where its size is another."""
        found = await self._blobs.stat(self.project, file.digest)
        if found is None or found.size != file.size_bytes:
            raise StateConflict(f"`{file.path}` is not stored as it was announced; import again")
        if file.path.endswith(".safetensors"):
            length = int.from_bytes(await self._read(file, 0, 8), "little")
            beginning = await self._read(file, 0, 8 + min(length, weights.HEADER_LIMIT))
            told = io.BytesIO(beginning)
            self.shards[file.path] = await asyncio.to_thread(weights.tensors_of, told, file.size_bytes, file.path)
        elif file.path.endswith(".json"):
            await asyncio.to_thread(self._take_in_config, await self._read(file, 0, file.size_bytes), file.path)

    def _take_in_config(self, content: bytes, name: str) -> None:
        config = weights.config_of(content, name)
        if name in ("config.json", weights.INDEX):  # the others were to be looked at, and are large at times
            self.configs[name] = config

    async def _read(self, file: types.ArtifactFile, start: int, length: int) -> bytes:
        return b"".join([piece async for piece in self._blobs.open(self.project, file.digest, start, length)])


async def _is_absent(blobs: BlobStore, project: str, digest: str) -> bool:
    try:
        return await blobs.stat(project, digest) is None
    except Corrupt:  # it is stored anew for whoever had it
        return False


class _Chunks:
    """The bytes of a stream of chunks, in portions of any size."""

    def __init__(self, requests: AsyncIterator[registry.ImportModelVersionRequest]) -> None:
        self._requests = requests
        self._rest = b""

    async def take(self, size: int) -> AsyncIterator[bytes]:
        """Yields the next ``size`` bytes. Raises Invalid when the stream ends before."""
        while size:
            if not self._rest and not await self._next():
                raise _mismatch("the stream ended before all files had come")
            data, self._rest = self._rest[:size], self._rest[size:]
            size -= len(data)
            yield data

    async def is_over(self) -> bool:
        """Whether nothing is left."""
        return not self._rest and not await self._next()

    async def _next(self) -> bool:
        """Gets the next bytes; False at the end of the stream."""
        async for request in self._requests:
            if request.WhichOneof("part") != "chunk":
                raise Invalid("an import has one header; send each version in a stream of its own")
            self._rest = request.chunk
            if self._rest:
                return True
        return False


def _mismatch(message: str) -> Invalid:
    return Invalid(f"{message}; import again", reason=errors.ERROR_REASON_CHECKSUM_MISMATCH)
