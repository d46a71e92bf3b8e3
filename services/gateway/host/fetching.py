"""The weights of this host: fetched by digest, checked before use, and forgotten by age; it knows no engine."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Set
from pathlib import Path

from kit.blobs import BlobStore, fetch_artifact, manifest_digest
from kit.telemetry import get_log, span
from services.gateway.engines.served import plain_digest
from sluice.types import v1 as types

log = get_log(__name__)


class ArtifactCache:
    """Folders named by the digest of what is in them (0700), up to `limit_bytes` beside those in use.

    `in_use` says which digests must stay. One process owns `root`.
    """

    def __init__(self, root: Path, blobs: BlobStore, *, limit_bytes: int, in_use: Callable[[], Set[str]]) -> None:
        self._root, self._blobs = root, blobs
        self._limit_bytes, self._in_use = limit_bytes, in_use
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for unfinished in root.glob(".*"):  # what an agent that died was fetching
            shutil.rmtree(unfinished, ignore_errors=True)

    def folder(self, digest: str) -> Path:
        """Where the artifact of that digest is, or would be."""
        return self._root / plain_digest(digest)

    async def fetch(self, project: str, artifact: types.Artifact) -> Path:
        """The artifact's folder: the one that is here if it is intact, else a new one.

        Raises what `fetch_artifact` raises: Corrupt, NotFound, Exhausted, Invalid.
        """
        async with self._locks[artifact.digest]:
            if folder := await self.intact(artifact.digest):
                os.utime(folder)
                return folder
            folder = self.folder(artifact.digest)
            size = sum(file.size_bytes for file in artifact.files)
            await asyncio.to_thread(self._make_room, size, self._in_use())
            with span("engine.fetch", digest=artifact.digest, bytes=size, files=len(artifact.files)):
                await fetch_artifact(self._blobs, project, artifact, folder)
            return folder

    async def intact(self, digest: str) -> Path | None:
        """The folder if every bit of it is as it was stored; a damaged one is removed."""
        folder = self.folder(digest)
        if not folder.exists():
            return None
        if await asyncio.to_thread(digest_of, folder) == digest:
            return folder
        log.warning("cached_artifact_damaged", digest=digest)
        await asyncio.to_thread(shutil.rmtree, folder)
        return None

    def _make_room(self, size: int, in_use: Set[str]) -> None:
        folders = sorted((path for path in self._root.glob("[!.]*")), key=lambda path: path.stat().st_mtime)
        sizes = {path: _size(path) for path in folders}
        total = size + sum(sizes.values())
        for path in folders:
            if total <= self._limit_bytes:
                return
            if f"sha256:{path.name}" not in in_use:
                shutil.rmtree(path)
                total -= sizes[path]


def digest_of(folder: Path) -> str:
    """The digest of the artifact that the files of a folder make, whatever they should make."""
    files = []
    for path in _files(folder):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files.append(types.ArtifactFile(path=path.relative_to(folder).as_posix(), digest=f"sha256:{digest}"))
    return manifest_digest(files)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files(folder))


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]
