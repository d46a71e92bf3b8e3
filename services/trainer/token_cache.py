"""Token columns of jobs before, kept encrypted on this host for jobs on the same rows; it knows no tokenizer.

`HOME/cache/tokens/KEY/`: `about.json` names the dataset version and no content, the rest are blobs of the kit, whose
keys are wrapped by the suite's. An entry goes when its version has other rows or none any more, at the latest
LOOK_S after that while the trainer runs, when it was not used for long, and when there is no room. It is a cache: what
cannot be read is not there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc

from kit.blobs import KeyEncryptionKey, open_store
from kit.rpc.errors import Fault, NotFound, from_rpc_error
from kit.rpc.names import project_of
from kit.telemetry import get_log
from sluice.dataset import v1 as dataset

log = get_log(__name__)
LOOK_S = 60.0
TIMEOUT_S = 10.0
#: Recipes that make their tokens by recipes/data/tokens.py, and the files of a model that say how.
RECIPES = ("sft", "dpo", "orpo", "cpo", "simpo", "kto", "rm")
TOKENIZER_FILES = (
    "tokenizer*",
    "chat_template*",
    "chat_templates/*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges*",
    "*.model",
    "*.tiktoken",
    "config.json",  # its model type says which tokenizer is made of the rest
)
UNFINISHED_S = 3600.0
UNUSED_S = 30 * 86_400.0
MOST_BYTES = 2 << 30
#: Gives the digest that a dataset version has now; raises NotFound where it has gone, other faults where nobody knows.
DigestNow = Callable[[str], Awaitable[str]]


@dataclass(frozen=True)
class About:
    """Which rows an entry is of, and the digest of each of its files by name."""

    dataset_version: str
    rows: str
    files: Mapping[str, str]


class TokenCache:
    """The entries below a folder, which only this process's user may read."""

    def __init__(self, folder: Path, kek: KeyEncryptionKey) -> None:
        self.folder = folder
        self._kek = kek

    async def fetch(self, key: str, target: Path) -> bool:
        """Puts the files of an entry into ``target``, a new folder; False, and nothing there, where there is none."""
        about = self._about(key)
        if about is None:
            return False
        blobs = open_store((self.folder / key).as_uri(), self._kek)
        target.mkdir(mode=0o700)
        try:
            for name, digest in about.files.items():
                with (target / name).open("wb") as file:
                    async for piece in blobs.open(project_of(about.dataset_version), digest):
                        file.write(piece)
            os.utime(self.folder / key / "about.json")  # fails where the entry went meanwhile: its rows may have gone
        except (Fault, OSError) as error:
            log.warning("tokens_unreadable", key=key, cause=type(error).__name__)
            shutil.rmtree(target)
            self.drop(key)
            return False
        return True

    async def keep(self, key: str, dataset_version: str, rows: str, source: Path, now: DigestNow) -> None:
        """Takes in the files of ``source``, unless the version has other rows by now; without room, nothing happens."""
        if not source.is_dir() or (self.folder / key).exists():
            return
        blobs = open_store((self.folder / key).as_uri(), self._kek)
        try:
            files = {}
            for path in sorted(source.glob("*.arrow")):
                files[path.name] = (await blobs.put(project_of(dataset_version), path)).digest
            about = self.folder / key / "about.json"
            about.with_suffix(".part").write_text(json.dumps(asdict(About(dataset_version, rows, files))), "utf-8")
            about.with_suffix(".part").replace(about)
            # Rows that were forgotten until here are seen here, later ones by `clear`.
            if await now(dataset_version) != rows:
                self.drop(key)
            self._make_room()
        except (Fault, OSError) as error:
            log.warning("tokens_not_kept", key=key, cause=type(error).__name__)
            self.drop(key)

    async def watch(self, now: DigestNow) -> None:
        """Clears away what has gone, until cancelled."""
        while True:
            await self.clear(now)
            await asyncio.sleep(LOOK_S)

    async def clear(self, now: DigestNow) -> None:
        """Removes entries of rows that are not any more, of unused ones and of such as were never finished."""
        for key in self._keys():
            about = self._about(key)
            if about is None:
                if self._unused_s(key) > UNFINISHED_S:  # else it is being written
                    self.drop(key)
                continue
            try:
                gone = await now(about.dataset_version) != about.rows
            except NotFound:
                gone = True
            except Fault:
                gone = False  # nobody knows; it is looked for again
            if gone or self._unused_s(key) > UNUSED_S:
                self.drop(key)

    def drop(self, key: str) -> None:
        """Removes an entry, its keys with it."""
        shutil.rmtree(self.folder / key, ignore_errors=True)

    def _make_room(self) -> None:
        keys = sorted(self._keys(), key=self._unused_s)
        held = 0
        for key in keys:
            held += sum(file.stat().st_size for file in (self.folder / key).rglob("*") if file.is_file())
            if held > MOST_BYTES:
                self.drop(key)

    def _keys(self) -> list[str]:
        return [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []

    def _about(self, key: str) -> About | None:
        try:
            return About(**json.loads((self.folder / key / "about.json").read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _unused_s(self, key: str) -> float:
        marked = self.folder / key / "about.json"
        try:
            return time.time() - (marked if marked.exists() else marked.parent).stat().st_mtime
        except OSError:
            return 0.0


def token_key(recipe: str, rows: str, base: Path, code: str) -> str | None:
    """What tokens depend on, as one digest: rows, tokenizer, chat template and code. None where they are not kept.

    ``rows`` is the digest of the dataset version, ``base`` the staged base model; `max_length` is no part of it, as
    rows of any length are kept.
    """
    if recipe not in RECIPES or not base.is_dir():
        return None
    digest = hashlib.sha256(json.dumps([recipe, rows, code]).encode())
    for path in sorted({file for pattern in TOKENIZER_FILES for file in base.glob(pattern) if file.is_file()}):
        content = path.read_bytes()
        if b"strftime_now" in content:  # a template that writes the day has other tokens tomorrow
            return None
        digest.update(f"\n{path.relative_to(base).as_posix()} {hashlib.sha256(content).hexdigest()}".encode())
    return digest.hexdigest()


async def digest_now(datasets: dataset.DatasetVersionServiceAsyncStub, name: str) -> str:
    """The digest of the rows that a dataset version has now. Raises NotFound, Unavailable."""
    try:
        answer = await datasets.GetDatasetVersion(dataset.GetDatasetVersionRequest(name=name), timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        raise from_rpc_error(error, "the dataset service") from error
    return answer.dataset_version.digest
