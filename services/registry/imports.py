"""Weights that come over the wire: into a private folder, checked there, then into the blob store."""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path

from kit.blobs import BlobStore, manifest_digest, store_artifact
from kit.rpc.errors import Invalid
from kit.rpc.names import project_of
from sluice.errors import v1 as errors
from sluice.registry import v1 as registry
from sluice.types import v1 as types

HEADER_LIMIT = 32 * 1024 * 1024


async def receive(
    header: registry.ImportHeader,
    requests: AsyncIterator[registry.ImportModelVersionRequest],
    folder: Path,
    blobs: BlobStore,
) -> types.Artifact:
    """Writes the files that follow a header into ``folder``, checks them, and stores them.

    Raises Invalid: CHECKSUM_MISMATCH when bytes are not those announced, MODEL_REJECTED when a file is no weights.
    """
    _check_header(header)
    if manifest_digest(header.artifact.files) != header.artifact.digest:
        raise _mismatch("the list of files does not have the digest that was announced")
    chunks = _Chunks(requests)
    for file in header.artifact.files:
        target = folder / file.path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with target.open("wb") as out:
            async for data in chunks.take(file.size_bytes):
                digest.update(data)
                out.write(data)
        if f"sha256:{digest.hexdigest()}" != file.digest:
            raise _mismatch(f"`{file.path}` does not have the digest that was announced")
        await asyncio.to_thread(check_weights, target, file.path)
    if not await chunks.is_over():
        raise _mismatch("more bytes came than the header announced")
    return await store_artifact(blobs, project_of(header.parent), folder, header.artifact.kind)


def check_weights(path: Path, name: str) -> None:
    """Raises Invalid (MODEL_REJECTED) for a ``.safetensors`` file that is none: its header must describe its bytes."""
    if path.suffix != ".safetensors":
        return
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
        if length > min(size - 8, HEADER_LIMIT):
            raise _rejected(name)
        try:
            header = json.loads(file.read(length))
            ends = [tensor["data_offsets"][1] for key, tensor in header.items() if key != "__metadata__"]
            described = max(ends, default=0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            raise _rejected(name) from None
    if described != size - 8 - length:
        raise _rejected(name)


def _check_header(header: registry.ImportHeader) -> None:
    if header.artifact.kind == types.ARTIFACT_KIND_ADAPTER and not header.base_model_version:
        raise Invalid(
            "an adapter needs base_model_version, the version that it was trained on; name it",
            violations=[("header.base_model_version", "is missing")],
        )
    paths = [file.path for file in header.artifact.files]
    folders = {str(folder) for path in paths for folder in Path(path).parents}
    if len(set(paths)) < len(paths) or not folders.isdisjoint(paths):
        raise Invalid(
            "the header names a file twice, or one path as a file and as a folder; name each file once",
            violations=[("header.artifact.files", "are not the files of a folder")],
        )


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


def _rejected(name: str) -> Invalid:
    return Invalid(
        f"`{name}` is not a safetensors file inside; save the weights with safetensors",
        reason=errors.ERROR_REASON_MODEL_REJECTED,
    )
