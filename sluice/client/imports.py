"""A folder of weights on its way into the registry: what of it is sent, and what is refused before anything is.

The registry looks at all of it again. Files that it has are not sent, so the same weights again cost a read of them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kit.blobs.artifacts import ALLOWED_NAMES, ALLOWED_SUFFIXES
from kit.rpc.errors import Invalid, Unavailable
from kit.rpc.names import project_of
from sluice import weights
from sluice.client import mirrors
from sluice.client.chunks import MESSAGE_BYTES
from sluice.client.connection import Connection
from sluice.client.exports import MANIFEST
from sluice.client.uploads import OnProgress, UploadProgress
from sluice.registry import v1 as registry
from sluice.types import v1 as types

#: Digests that are asked for in one call.
ASKED_AT_ONCE = 1000
#: Breaks in a row that bring no file further before an import is given up.
MAX_BREAKS = 6
#: Folders beside the weights that hold the same in other formats, or nothing that a model needs.
BESIDE = ("onnx", "openvino", "original", "coreml", "gguf", "assets", "figures", "examples", "runs")

#: What the suite itself writes beside weights that are taken out of it; with these they would be another version.
RECORDS = (MANIFEST, "job.json", "steps.jsonl")


class ModelFiles(NamedTuple):
    """The files to send by their paths in the model, in the order of the paths, and where each lies here.

    ``left_out`` are files of the folder that are no part of what transformers loads: never sent, never read.
    """

    files: Mapping[str, Path]
    kind: types.ArtifactKind
    left_out: Sequence[str]


def model_files(folder: Path) -> ModelFiles:
    """What is to be sent of a folder; hidden files stay. Raises Invalid when the folder holds no model to be taken."""
    if not folder.is_dir():
        raise Invalid(f"there is no folder `{folder}`; give the one with config.json and *.safetensors")
    there = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    adapter = "adapter_config.json" in there
    if not adapter and "config.json" not in there:
        raise Invalid(f"`{folder}` has neither config.json nor adapter_config.json; give the folder of one model")
    configs = {path: _config(file, path) for path, file in there.items() if path.endswith("config.json")}
    taken = _taken(there, _indexed(there))
    if not any(path.endswith(".safetensors") for path in taken):
        pickled = next((path for path in there if Path(path).suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt")), "")
        why = f" but `{pickled}`, a pickle, which runs code when it is read" if pickled else ""
        raise weights.rejected(
            f"`{folder}` has no *.safetensors{why}; save the weights with `model.save_pretrained(…)`"
        )
    for path, file in taken.items():
        _check_inside(file, path, mirrors.root_of(folder))
    _check_content(taken, configs)
    kind = types.ARTIFACT_KIND_ADAPTER if adapter else types.ARTIFACT_KIND_FULL
    return ModelFiles(taken, kind, [path for path in there if path not in taken])


async def send(
    connection: Connection,
    files: ModelFiles,
    *,
    parent: str,
    dataset_version: str,
    base_model_version: str,
    source_id: str,
    progress: OnProgress | None,
) -> registry.ModelVersion:
    """Sends what is not stored yet and returns the version it became; what breaks off goes on with the next file."""
    artifact = await asyncio.to_thread(measure, files, progress)
    header = registry.ImportHeader(
        parent=parent,
        artifact=artifact,
        base_model_version=base_model_version,
        dataset_version=dataset_version,
        source_id=source_id,
    )
    stub, breaks, before = registry.ModelVersionServiceStub(connection.channel), 0, -1
    while True:
        stored = await _stored(connection, project_of(parent), {file.digest for file in artifact.files})
        header.stored_digests[:] = sorted(stored)
        try:
            parts = _parts(files, header, progress)
            answer: registry.ImportModelVersionResponse = await connection.send(stub.ImportModelVersion, parts)
            return answer.model_version
        except Unavailable:
            breaks = 0 if len(stored) > before else breaks + 1
            before = len(stored)
            if breaks > MAX_BREAKS:
                raise
            await asyncio.sleep(min(0.1 * 2**breaks, 3.0))


async def _stored(connection: Connection, project: str, digests: Collection[str]) -> set[str]:
    stub, wanted, found = registry.ModelVersionServiceStub(connection.channel), sorted(digests), set[str]()
    for start in range(0, len(wanted), ASKED_AT_ONCE):
        some = wanted[start : start + ASKED_AT_ONCE]
        request = registry.GetStoredModelFilesRequest(parent=project, digests=some)
        answer: registry.GetStoredModelFilesResponse = await connection.call(stub.GetStoredModelFiles, request)
        found.update(answer.digests)
    return found


def _taken(there: Mapping[str, Path], shards: Collection[str]) -> dict[str, Path]:
    """Of the files those that transformers loads; of weights in several files those that the index names."""

    def is_taken(path: str) -> bool:
        name = Path(path)
        if name.parts[0] in BESIDE and len(name.parts) > 1:
            return False
        if path in RECORDS:
            return False
        if name.suffix == ".safetensors" and shards:
            return path in shards or name.parent != Path()
        return name.suffix in ALLOWED_SUFFIXES or name.name in ALLOWED_NAMES

    return {path: file for path, file in there.items() if is_taken(path)}


def _indexed(there: Mapping[str, Path]) -> set[str]:
    """The files of weights that lie in several; empty for those in one."""
    if weights.INDEX not in there:
        return set()
    found = _config(there[weights.INDEX], weights.INDEX).get("weight_map")
    return {str(name) for name in found.values()} if isinstance(found, dict) else set()


def _config(file: Path, path: str) -> dict[str, object]:
    weights.check_size(path, file.stat().st_size)
    return weights.config_of(file.read_bytes(), path)


def _check_content(taken: Mapping[str, Path], configs: Mapping[str, Mapping[str, object]]) -> None:
    """Raises Invalid (MODEL_REJECTED) for files that are not what their names say, or not those of one model."""
    shards, told = {}, dict(configs)
    for path, file in taken.items():
        weights.check_size(path, file.stat().st_size)
        with file.open("rb") as content:
            if path.endswith(".safetensors"):
                shards[path] = weights.tensors_of(content, file.stat().st_size, path)
            else:
                weights.check_beginning(content.read(4), path)
        if path == weights.INDEX:
            told[path] = _config(file, path)
    weights.check_whole(told, shards)


def _check_inside(file: Path, path: str, root: Path) -> None:
    """A link may lead to where a cache keeps contents, and nowhere else: else it could hand over any file here."""
    real = file.resolve()
    if not real.is_relative_to(root.resolve()):
        raise weights.rejected(
            f"`{path}` is a link that leads out of `{root}`, to `{real}`; put the file itself in its place"
        )


def measure(files: ModelFiles, progress: OnProgress | None) -> types.Artifact:
    """The files as an artifact: their digests and sizes."""
    from kit.blobs.artifacts import manifest_digest

    total = sum(file.stat().st_size for file in files.files.values())
    found, done = [], 0
    for path, place in files.files.items():
        digest, size = hashlib.sha256(), 0
        with place.open("rb") as file:
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
    stored = set(header.stored_digests)
    left = [file for file in header.artifact.files if file.digest not in stored]
    total, done = sum(file.size_bytes for file in left), 0
    for each in left:
        with files.files[each.path].open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, MESSAGE_BYTES):
                yield registry.ImportModelVersionRequest(chunk=chunk)
                done += len(chunk)
                if progress:
                    progress(UploadProgress("sending", done, total))
