"""Folders of files as artifacts in a blob store, and back; it never loads what it carries."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from kit.blobs.contract import BlobStore, Taker
from kit.blobs.objects import in_thread
from kit.rpc.errors import Corrupt, Invalid, from_driver_error
from sluice.errors import v1 as errors
from sluice.types import v1 as types

# Formats that cannot carry code: no pickles, no Python.
ALLOWED_SUFFIXES = frozenset({".safetensors", ".json", ".jsonl", ".txt", ".md", ".jinja", ".model", ".tiktoken"})
ALLOWED_NAMES = frozenset({"LICENSE", "NOTICE"})
# What a package to take away may hold beside these: graphs, their weights and indexes, which no process of ours loads.
PACKAGED_SUFFIXES = frozenset({".onnx", ".data", ".gguf", ".faiss"})
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*)*")
_MAX_PATH = 255


def manifest_digest(files: Iterable[types.ArtifactFile]) -> str:
    """Return `sha256:<hex>` over the lines `<path> NUL <digest> LF`, ordered by path."""
    lines = sorted(f"{file.path}\0{file.digest}\n" for file in files)
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


async def store_artifact(store: Taker, project: str, folder: Path, kind: "types.ArtifactKind") -> types.Artifact:
    """Put every file of the folder into the store and return the artifact.

    Raises Invalid (MODEL_REJECTED) before anything is stored when a file is a link, no regular file, or of
    a kind that may carry code.
    """
    paths = sorted(_files_of(folder, folder, PACKAGED_SUFFIXES if kind == types.ARTIFACT_KIND_PACKAGE else frozenset()))
    if not paths:
        raise _rejected(f"`{folder.name}` holds no files")
    files = []
    for path in paths:
        blob = await store.put(project, folder / path)
        files.append(types.ArtifactFile(path=path, digest=blob.digest, size_bytes=blob.size))
    return types.Artifact(kind=kind, files=files, digest=manifest_digest(files))


async def fetch_artifact(store: BlobStore, project: str, artifact: types.Artifact, folder: Path) -> None:
    """Write the artifact's files into a new folder (0700, files 0600), which appears whole or not at all.

    FileExistsError when the folder is there. Raises Invalid (CHECKSUM_MISMATCH) when the artifact's digest
    is not that of its files, Invalid when a path leads outside, NotFound, Corrupt, Exhausted (STORAGE_FULL).
    """
    check_manifest(artifact)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; remove it or fetch elsewhere")
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.{os.urandom(8).hex()}")
    aside.mkdir(mode=0o700)
    try:
        for file in artifact.files:
            await _fetch_file(store, project, file, aside / file.path)
        aside.rename(folder)
    except OSError as error:
        if fault := from_driver_error(error):
            raise fault from error
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


async def _fetch_file(store: BlobStore, project: str, file: types.ArtifactFile, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        async for piece in store.open(project, file.digest):
            await in_thread(_hash_and_write, digest, out, piece)
        out.flush()
        await in_thread(os.fsync, out.fileno())
    if f"sha256:{digest.hexdigest()}" != file.digest:
        raise Corrupt(f"`{file.path}` did not arrive as it was stored; fetch it again")


def _hash_and_write(digest: "hashlib._Hash", out: BinaryIO, piece: bytes) -> None:
    digest.update(piece)
    out.write(piece)


def check_manifest(artifact: types.Artifact) -> None:
    """Raises Invalid when a path leads outside, comes twice, or the digest is not that of the files."""
    paths = [file.path for file in artifact.files]
    for path in paths:
        _check_path(path)
    if len(set(paths)) != len(paths):
        raise Invalid("the artifact names a file twice; store it again")
    if manifest_digest(artifact.files) != artifact.digest:
        raise Invalid(
            f"the files of the artifact do not have the digest `{artifact.digest}`; store it again",
            reason=errors.ERROR_REASON_CHECKSUM_MISMATCH,
        )


def check_file_name(path: str, also: frozenset[str] = frozenset()) -> None:
    """Raises Invalid (MODEL_REJECTED) for a kind of file that may carry code, and for one that leads outside.

    ``also`` are endings that are allowed here.
    """
    name = PurePosixPath(path)
    if name.suffix not in ALLOWED_SUFFIXES | also and name.name not in ALLOWED_NAMES:
        allowed = ", ".join(sorted(ALLOWED_SUFFIXES))
        raise _rejected(f"`{path}` may carry code and is refused; save weights as .safetensors (allowed: {allowed})")
    _check_path(path)


def _check_path(path: str) -> None:
    if len(path) > _MAX_PATH or not _PATH.fullmatch(path):
        raise Invalid(f"`{path[:80]}` is no path inside an artifact; use letters, digits, `_`, `.`, `-` and `/`")


def _files_of(folder: Path, root: Path, also: frozenset[str]) -> Iterator[str]:
    for entry in folder.iterdir():
        path = entry.relative_to(root).as_posix()
        if entry.is_symlink():
            raise _rejected(f"`{path}` is a link; copy the file itself")
        if entry.is_dir():
            yield from _files_of(entry, root, also)
        elif not entry.is_file():
            raise _rejected(f"`{path}` is no regular file; remove it")
        else:
            check_file_name(path, also)
            yield path


def _rejected(message: str) -> Invalid:
    return Invalid(message, reason=errors.ERROR_REASON_MODEL_REJECTED)
