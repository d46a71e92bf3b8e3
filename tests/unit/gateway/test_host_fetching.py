"""The cache of weights: real blobs, flipped bits, lost blobs and its limit."""

import os
from pathlib import Path

import pytest

from kit.blobs import BlobStore, FileKek, open_store, store_artifact
from kit.rpc.errors import Corrupt, NotFound
from services.gateway.host.fetching import ArtifactCache, digest_of
from sluice.types import v1 as types
from tests.fakes.engine import write_model

PROJECT = "projects/default"


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    (tmp_path / "home").mkdir()
    return open_store(f"file://{tmp_path}/blobs", FileKek.create(tmp_path / "kek", home=tmp_path / "home"))


async def stored(blobs: BlobStore, folder: Path, hidden: int) -> types.Artifact:
    return await store_artifact(blobs, PROJECT, write_model(folder, hidden=hidden), types.ARTIFACT_KIND_FULL)


def cache_of(tmp_path: Path, blobs: BlobStore, *, limit_bytes: int = 2**30, in_use: frozenset[str] = frozenset()):
    return ArtifactCache(tmp_path / "cache", blobs, limit_bytes=limit_bytes, in_use=lambda: in_use)


async def test_what_is_fetched_is_what_was_stored(tmp_path: Path, blobs: BlobStore) -> None:
    artifact = await stored(blobs, tmp_path / "model", 8)
    cache = cache_of(tmp_path, blobs)
    folder = await cache.fetch(PROJECT, artifact)
    assert folder == tmp_path / "cache" / artifact.digest.removeprefix("sha256:")
    assert digest_of(folder) == artifact.digest
    assert (folder.stat().st_mode & 0o777, (folder / "config.json").stat().st_mode & 0o777) == (0o700, 0o600)
    inode = (folder / "config.json").stat().st_ino
    assert await cache.fetch(PROJECT, artifact) == folder
    assert (folder / "config.json").stat().st_ino == inode


@pytest.mark.parametrize("damage", ["flip", "remove", "add"])
async def test_a_damaged_folder_is_fetched_again(tmp_path: Path, blobs: BlobStore, damage: str) -> None:
    artifact = await stored(blobs, tmp_path / "model", 8)
    cache = cache_of(tmp_path, blobs)
    weights = (await cache.fetch(PROJECT, artifact)) / "model.safetensors"
    match damage:
        case "flip":
            weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
        case "remove":
            weights.unlink()
        case "add":
            weights.with_name("more.json").write_text("{}")
    assert digest_of(await cache.fetch(PROJECT, artifact)) == artifact.digest


async def test_a_flipped_blob_is_corrupt_and_leaves_nothing(tmp_path: Path, blobs: BlobStore) -> None:
    artifact = await stored(blobs, tmp_path / "model", 64)
    largest = max((path for path in (tmp_path / "blobs").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    with pytest.raises(Corrupt):
        await cache_of(tmp_path, blobs).fetch(PROJECT, artifact)
    assert list((tmp_path / "cache").iterdir()) == []


async def test_another_projects_blobs_are_not_there(tmp_path: Path, blobs: BlobStore) -> None:
    artifact = await stored(blobs, tmp_path / "model", 8)
    with pytest.raises(NotFound):
        await cache_of(tmp_path, blobs).fetch("projects/other", artifact)


async def test_the_oldest_that_nobody_needs_goes_first(tmp_path: Path, blobs: BlobStore) -> None:
    artifacts = [await stored(blobs, tmp_path / f"m{hidden}", hidden) for hidden in (8, 9, 10, 11)]
    cache = cache_of(tmp_path, blobs, limit_bytes=1, in_use=frozenset(each.digest for each in artifacts[:3]))
    folders = [await cache.fetch(PROJECT, each) for each in artifacts[:3]]
    for age, folder in enumerate(folders):
        os.utime(folder, (1000 - age, 1000 - age))
    assert all(folder.exists() for folder in folders)
    room_for_three = sum(file.size_bytes for each in artifacts[1:] for file in each.files)
    small = cache_of(tmp_path, blobs, limit_bytes=room_for_three, in_use=frozenset({artifacts[2].digest}))
    await small.fetch(PROJECT, artifacts[3])
    assert [folder.exists() for folder in folders] == [True, False, True]


async def test_an_unfinished_fetch_of_a_dead_agent_is_removed(tmp_path: Path, blobs: BlobStore) -> None:
    (tmp_path / "cache" / ".abc.123").mkdir(parents=True)
    cache_of(tmp_path, blobs)
    assert list((tmp_path / "cache").iterdir()) == []
