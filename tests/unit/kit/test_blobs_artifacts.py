"""Artifacts and the key-encryption key: what is refused, and what comes back."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.blobs import BlobStore, FileKek, fetch_artifact, manifest_digest, open_store, store_artifact
from kit.rpc.errors import Exhausted, Invalid, NotFound
from sluice.errors import v1 as errors
from sluice.types import v1 as types

PROJECT = "projects/default"


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    home = tmp_path / "home"
    return open_store((home / "blobs").as_uri(), FileKek.create(tmp_path / "kek", home=home))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(os.urandom(1_500_000))
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer" / "vocab.txt").write_text("a\nb\n")
    return folder


async def test_a_folder_goes_and_comes_back(store: BlobStore, model: Path, tmp_path: Path) -> None:
    artifact = await store_artifact(store, PROJECT, model, types.ARTIFACT_KIND_FULL)
    paths = ["config.json", "model.safetensors", "tokenizer/vocab.txt"]
    assert [file.path for file in artifact.files] == paths
    lines = "".join(f"{p}\0sha256:{hashlib.sha256((model / p).read_bytes()).hexdigest()}\n" for p in paths)
    assert artifact.digest == f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
    assert await store_artifact(store, PROJECT, model, types.ARTIFACT_KIND_FULL) == artifact
    out = tmp_path / "out"
    await fetch_artifact(store, PROJECT, artifact, out)
    assert out.stat().st_mode & 0o777 == 0o700
    for path in paths:
        assert (out / path).read_bytes() == (model / path).read_bytes()
        assert (out / path).stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        await fetch_artifact(store, PROJECT, artifact, out)


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "a.pkl", "modeling.py", "noend", "x.SAFETENSORS.so"])
async def test_files_that_may_carry_code_are_refused(store: BlobStore, model: Path, name: str) -> None:
    (model / name).write_bytes(b"x")
    with pytest.raises(Invalid) as refused:
        await store_artifact(store, PROJECT, model, types.ARTIFACT_KIND_FULL)
    assert refused.value.reason == errors.ERROR_REASON_MODEL_REJECTED
    assert name in refused.value.message


async def test_a_package_to_take_away_may_hold_what_weights_may_not_but_no_code(store: BlobStore, model: Path) -> None:
    for name in ("model.onnx", "model.onnx.data", "model.gguf", "index.faiss"):
        (model / name).write_bytes(b"x")
        with pytest.raises(Invalid, match="may carry code"):
            await store_artifact(store, PROJECT, model, types.ARTIFACT_KIND_FULL)
    artifact = await store_artifact(store, PROJECT, model, types.ARTIFACT_KIND_PACKAGE)
    assert {file.path for file in artifact.files} >= {"model.onnx", "model.onnx.data", "model.gguf", "index.faiss"}
    (model / "run.py").write_bytes(b"x")
    with pytest.raises(Invalid, match="may carry code"):
        await store_artifact(store, PROJECT, model, types.ARTIFACT_KIND_PACKAGE)


async def test_links_and_empty_folders_are_refused(store: BlobStore, model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(Invalid, match="no files"):
        await store_artifact(store, PROJECT, tmp_path / "empty", types.ARTIFACT_KIND_FULL)
    (model / "secret.txt").symlink_to(tmp_path / "kek")
    with pytest.raises(Invalid, match="link"):
        await store_artifact(store, PROJECT, model, types.ARTIFACT_KIND_FULL)


@pytest.mark.parametrize("path", ["../x.json", "/etc/x.json", "a//b.json", ".hidden.json", "a/../../x.json", ""])
async def test_a_path_that_leads_outside_is_refused(store: BlobStore, tmp_path: Path, path: str) -> None:
    files = [types.ArtifactFile(path=path, digest=f"sha256:{'0' * 64}")]
    artifact = types.Artifact(kind=types.ARTIFACT_KIND_FULL, files=files, digest=manifest_digest(files))
    with pytest.raises(Invalid, match="path"):
        await fetch_artifact(store, PROJECT, artifact, tmp_path / "out")


async def test_a_failed_fetch_leaves_nothing(store: BlobStore, model: Path, tmp_path: Path) -> None:
    artifact = await store_artifact(store, PROJECT, model, types.ARTIFACT_KIND_FULL)
    await store.delete(PROJECT, artifact.files[2].digest)
    (tmp_path / "cache").mkdir()
    with pytest.raises(NotFound):
        await fetch_artifact(store, PROJECT, artifact, tmp_path / "cache" / "out")
    assert list((tmp_path / "cache").iterdir()) == []
    artifact.files[0].digest = f"sha256:{'0' * 64}"
    with pytest.raises(Invalid, match="digest"):
        await fetch_artifact(store, PROJECT, artifact, tmp_path / "cache" / "out")


def test_the_key_file_stays_outside_and_private(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "link").symlink_to(home)
    for path in (home / "kek", home / "a" / "kek", tmp_path / "link" / "kek"):
        with pytest.raises(ValueError, match="keep it elsewhere"):
            FileKek.create(path, home=home)
    made = FileKek.create(tmp_path / "keys" / "kek", home=home)
    loaded = FileKek.load(tmp_path / "keys" / "kek", home=home)
    assert loaded.unwrap(*made.wrap(b"k" * 32)) == b"k" * 32 and loaded.key_id == made.key_id
    (tmp_path / "keys" / "kek").chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600"):
        FileKek.load(tmp_path / "keys" / "kek", home=home)
    with pytest.raises(FileExistsError):
        FileKek.create(tmp_path / "keys" / "kek", home=home)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_is_told_and_keeps_nothing(tiny_disk: Path, tmp_path: Path) -> None:
    store = open_store((tiny_disk / "blobs").as_uri(), FileKek.create(tmp_path / "kek", home=tiny_disk))
    (tmp_path / "big").write_bytes(os.urandom(5_000_000))
    small = tmp_path / "small"
    small.write_bytes(b"small")
    with pytest.raises(Exhausted) as full:
        await store.put(PROJECT, tmp_path / "big")
    assert full.value.reason == errors.ERROR_REASON_STORAGE_FULL
    assert not [path for path in (tiny_disk / "blobs").rglob("*") if path.is_file()]
    blob = await store.put(PROJECT, small)
    assert [piece async for piece in store.open(PROJECT, blob.digest)] == [b"small"]
