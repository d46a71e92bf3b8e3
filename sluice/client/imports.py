"""A folder of weights on its way into the registry; what a good model is, the registry decides."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kit.rpc.errors import Invalid
from sluice.client.chunks import MESSAGE_BYTES
from sluice.client.connection import Connection
from sluice.client.uploads import OnProgress, UploadProgress
from sluice.registry import v1 as registry
from sluice.types import v1 as types


class ModelFiles(NamedTuple):
    """The files to send, by their paths below ``folder``, in the order of the paths."""

    folder: Path
    paths: Sequence[str]
    kind: types.ArtifactKind


def model_files(folder: Path) -> ModelFiles:
    """What is to be sent of a folder; hidden files stay. Raises Invalid when the folder holds no model."""
    if not folder.is_dir():
        raise Invalid(f"there is no folder `{folder}`; give the one with config.json and *.safetensors")
    paths = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    adapter = "adapter_config.json" in paths
    if not adapter and "config.json" not in paths:
        raise Invalid(f"`{folder}` has neither config.json nor adapter_config.json; give the folder of one model")
    if not any(path.endswith(".safetensors") for path in paths):
        raise Invalid(f"`{folder}` has no *.safetensors; save the weights with `model.save_pretrained(…)`")
    return ModelFiles(folder, paths, types.ARTIFACT_KIND_ADAPTER if adapter else types.ARTIFACT_KIND_FULL)


async def send(
    connection: Connection,
    files: ModelFiles,
    *,
    parent: str,
    dataset_version: str,
    base_model_version: str,
    progress: OnProgress | None,
) -> registry.ModelVersion:
    """Sends the folder and returns the version it became."""
    artifact = await asyncio.to_thread(_measure, files, progress)
    header = registry.ImportHeader(
        parent=parent,
        artifact=artifact,
        base_model_version=base_model_version,
        dataset_version=dataset_version,
    )
    stub = registry.ModelVersionServiceStub(connection.channel)
    parts = _parts(files, header, progress)
    answer: registry.ImportModelVersionResponse = await connection.send(stub.ImportModelVersion, parts)
    return answer.model_version


def _measure(files: ModelFiles, progress: OnProgress | None) -> types.Artifact:
    from kit.blobs.artifacts import manifest_digest

    total = sum((files.folder / path).stat().st_size for path in files.paths)
    found, done = [], 0
    for path in files.paths:
        digest, size = hashlib.sha256(), 0
        with (files.folder / path).open("rb") as file:
            while chunk := file.read(MESSAGE_BYTES):
                digest.update(chunk)
                size, done = size + len(chunk), done + len(chunk)
                if progress:
                    progress(UploadProgress("hashing", done, total))
        found.append(types.ArtifactFile(path=path, digest=f"sha256:{digest.hexdigest()}", size_bytes=size))
    return types.Artifact(kind=files.kind, files=found, digest=manifest_digest(found))


async def _parts(
    files: ModelFiles, header: registry.ImportHeader, progress: OnProgress | None
) -> AsyncIterator[registry.ImportModelVersionRequest]:
    yield registry.ImportModelVersionRequest(header=header)
    total, done = sum(file.size_bytes for file in header.artifact.files), 0
    for path in files.paths:
        with (files.folder / path).open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, MESSAGE_BYTES):
                yield registry.ImportModelVersionRequest(chunk=chunk)
                done += len(chunk)
                if progress:
                    progress(UploadProgress("sending", done, total))
