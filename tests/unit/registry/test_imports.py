"""Weights that come over the wire: real blobs in a folder of the test, broken streams, files that are no weights."""

import hashlib
import json
import pickle
import struct

import pytest

from kit.blobs import FileKek, manifest_digest, open_store
from kit.rpc.errors import Invalid
from services.registry.imports import receive
from services.registry.version_servicer import ModelVersionServicer
from sluice.errors import v1 as errors
from sluice.registry import v1 as registry
from sluice.types import v1 as types

PROJECT = "projects/p"


def safetensors(tensor=b"\0" * 16, end=None, header=None):
    described = {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, len(tensor) if end is None else end]}}
    text = json.dumps(described).encode() if header is None else header
    return struct.pack("<Q", len(text)) + text + tensor


def announced(files, kind=types.ARTIFACT_KIND_FULL, base=""):
    listed = [
        types.ArtifactFile(path=path, digest=f"sha256:{hashlib.sha256(data).hexdigest()}", size_bytes=len(data))
        for path, data in files
    ]
    artifact = types.Artifact(kind=kind, files=listed, digest=manifest_digest(listed))
    return registry.ImportHeader(parent=f"{PROJECT}/models/m", artifact=artifact, base_model_version=base)


async def stream(*parts):
    for part in parts:
        yield (
            part
            if isinstance(part, registry.ImportModelVersionRequest)
            else registry.ImportModelVersionRequest(chunk=part)
        )


@pytest.fixture
def blobs(tmp_path):
    kek = FileKek.create(tmp_path / "kek", home=tmp_path / "home")
    return open_store(f"file://{tmp_path}/blobs", kek)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "in"
    made.mkdir()
    return made


GOOD = [("config.json", b"{}"), ("empty.txt", b""), ("model.safetensors", safetensors())]


@pytest.mark.parametrize("size", [1, 10, 1 << 20])
async def test_weights_arrive_however_they_are_cut(blobs, folder, size):
    content = b"".join(data for _, data in GOOD)
    chunks = [content[at : at + size] for at in range(0, len(content), size)]
    artifact = await receive(announced(GOOD), stream(*chunks, b""), folder, blobs)
    assert artifact.digest == announced(GOOD).artifact.digest
    read = b"".join([piece async for piece in blobs.open(PROJECT, artifact.files[-1].digest)])
    assert read == safetensors()


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        b"\x80\x04K\x01.",
        pickle.dumps({"w": [1.0]}),
        safetensors(header=b"not json"),
        safetensors(header=b"[]"),
        safetensors(header=b"[" * 100_000),
        safetensors(header=b'{"w": {}}'),
        safetensors(header=b'{"w": {"data_offsets": [0]}}'),
        safetensors(header=b'{"w": {"data_offsets": [0, "16"]}}'),
        safetensors(header=b'{"v": {"data_offsets": [0, 16]}, "w": {"data_offsets": [0, "16"]}}'),
        safetensors(end=8),
        safetensors(end=10**12),
        struct.pack("<Q", 1 << 62) + b"{}",
        safetensors() + b"appended",
    ],
)
async def test_a_file_that_only_calls_itself_safetensors_is_refused(blobs, folder, weights):
    files = [("model.safetensors", weights)]
    with pytest.raises(Invalid, match="safetensors") as refused:
        await receive(announced(files), stream(weights), folder, blobs)
    assert refused.value.reason == errors.ERROR_REASON_MODEL_REJECTED


@pytest.mark.parametrize("path", ["model.bin", "model.pt", "weights.pkl", "modeling.py", "run.sh", "a.so"])
async def test_what_may_carry_code_is_refused_and_nothing_stored(blobs, folder, tmp_path, path):
    files = [*GOOD, (path, pickle.dumps(print))]
    with pytest.raises(Invalid, match="may carry code") as refused:
        await receive(announced(files), stream(*(data for _, data in files)), folder, blobs)
    assert refused.value.reason == errors.ERROR_REASON_MODEL_REJECTED
    assert not [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([b"{}"], "ended before"),
        ([b"{]" + safetensors()], "digest"),
        ([b"{}" + safetensors() + b"!"], "more bytes"),
        ([b"{}", registry.ImportModelVersionRequest(header=announced(GOOD))], "one header"),
    ],
)
async def test_a_stream_that_is_not_what_was_announced(blobs, folder, parts, said):
    with pytest.raises(Invalid, match=said):
        await receive(announced(GOOD), stream(*parts), folder, blobs)


async def test_a_list_of_files_that_was_changed(blobs, folder):
    header = announced(GOOD)
    header.artifact.files[0].digest = header.artifact.files[1].digest
    with pytest.raises(Invalid, match="list of files"):
        await receive(header, stream(), folder, blobs)


@pytest.mark.parametrize("paths", [("a.txt", "a.txt"), ("a.txt", "a.txt/b.txt"), ("x/y", "x/y/z/w.txt")])
async def test_one_path_is_one_file(blobs, folder, paths):
    with pytest.raises(Invalid, match="name each file once"):
        await receive(announced([(path, b"a") for path in paths]), stream(b"a", b"a"), folder, blobs)


async def test_an_adapter_names_its_base(blobs, folder):
    with pytest.raises(Invalid, match="base_model_version"):
        await receive(announced(GOOD, types.ARTIFACT_KIND_ADAPTER), stream(), folder, blobs)


def test_what_a_killed_process_left_decrypted_is_gone_after_the_next_start(tmp_path):
    left = tmp_path / "imports" / "tmpx" / "model.safetensors"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"weights")
    ModelVersionServicer(None, None, None, tmp_path / "imports")
    assert not left.exists()
