"""Weights that come over the wire: real blobs in a folder of the test, broken streams, files that are no weights."""

import asyncio
import hashlib
import json
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest

from kit.blobs import FileKek, manifest_digest, open_store
from kit.rpc.errors import Invalid
from services.registry.imports import _Content, receive
from services.registry.version_servicer import ModelVersionServicer
from sluice import weights
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


async def ignored(file, brought):
    """Nobody remembers what was stored."""


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
    noted = []

    async def note(file, brought):
        assert await blobs.stat(PROJECT, file.digest) is None
        noted.append((file.digest, brought))

    header = announced(GOOD)
    await receive(header, stream(*chunks, b""), folder, blobs, note)
    assert noted == [(file.digest, True) for file in header.artifact.files] and not list(folder.iterdir())
    read = b"".join([piece async for piece in blobs.open(PROJECT, header.artifact.files[-1].digest)])
    assert read == safetensors()


async def test_what_was_stored_before_is_not_told_as_brought(blobs, folder):
    told = []

    async def note(file, brought):
        told.append((file.path, brought))

    await receive(announced(GOOD[2:]), stream(GOOD[2][1]), folder, blobs, ignored)
    await receive(announced(GOOD), stream(b"".join(data for _, data in GOOD)), folder, blobs, note)
    assert told == [("config.json", True), ("empty.txt", True), ("model.safetensors", False)]


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
        await receive(announced(files), stream(weights), folder, blobs, ignored)
    assert refused.value.reason == errors.ERROR_REASON_MODEL_REJECTED


@pytest.mark.parametrize("path", ["model.bin", "model.pt", "weights.pkl", "modeling.py", "run.sh", "a.so"])
async def test_what_may_carry_code_is_refused_and_nothing_stored(blobs, folder, tmp_path, path):
    files = [*GOOD, (path, pickle.dumps(print))]
    with pytest.raises(Invalid, match="may carry code") as refused:
        await receive(announced(files), stream(*(data for _, data in files)), folder, blobs, ignored)
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
        await receive(announced(GOOD), stream(*parts), folder, blobs, ignored)


async def test_a_list_of_files_that_was_changed(blobs, folder):
    header = announced(GOOD)
    header.artifact.files[0].digest = header.artifact.files[1].digest
    with pytest.raises(Invalid, match="list of files"):
        await receive(header, stream(), folder, blobs, ignored)


@pytest.mark.parametrize("paths", [("a.txt", "a.txt"), ("a.txt", "a.txt/b.txt"), ("x/y", "x/y/z/w.txt")])
async def test_one_path_is_one_file(blobs, folder, paths):
    with pytest.raises(Invalid, match="name each file once"):
        await receive(announced([(path, b"a") for path in paths]), stream(b"a", b"a"), folder, blobs, ignored)


async def test_a_json_of_more_than_any_model_has_is_refused_before_it_comes(blobs, folder):
    header = announced(GOOD)
    header.artifact.files[0].size_bytes = weights.JSON_LIMIT + 1
    with pytest.raises(Invalid, match=r"`config.json` has 67108865 bytes, and no .json of a model has more") as refused:
        await receive(header, stream(), folder, blobs, ignored)
    assert refused.value.reason == errors.ERROR_REASON_MODEL_REJECTED


class Listed(ThreadPoolExecutor):
    """The threads of a loop, with the names of what they were given."""

    def __init__(self):
        super().__init__(1)
        self.given = []

    def submit(self, work, /, *args, **options):
        self.given += [getattr(each, "__name__", "") for each in getattr(work, "args", ())]
        return super().submit(work, *args, **options)


async def test_what_was_stored_is_read_off_the_loop_and_two_configs_are_kept(blobs, folder):
    index = json.dumps({"weight_map": {"w": "model.safetensors"}}).encode()
    files = [*GOOD, (weights.INDEX, index), ("tokenizer.json", b"{}"), ("sub/config.json", b"{}")]
    header = announced(files)
    await receive(header, stream(b"".join(data for _, data in files)), folder, blobs, ignored)
    threads = Listed()
    asyncio.get_running_loop().set_default_executor(threads)
    content = _Content(blobs, PROJECT)
    for file in header.artifact.files:
        await content.take_in_stored(file)
    assert set(content.configs) == {"config.json", weights.INDEX} and set(content.shards) == {"model.safetensors"}
    assert {"_take_in_config", "tensors_of"} <= set(threads.given)
    header.stored_digests.extend(file.digest for file in header.artifact.files)
    await receive(header, stream(), folder, blobs, ignored)
    assert "check_whole" in threads.given


async def test_an_import_tells_of_weights_in_few_bits(blobs, folder):
    few = json.dumps({"quantization_config": {"quant_method": "gptq"}}).encode()
    for config, told in ((b"{}", ""), (few, "gptq files, which no recipe reads")):
        files = [("config.json", config), ("model.safetensors", safetensors())]
        content = b"".join(data for _, data in files)
        assert await receive(announced(files), stream(content), folder, blobs, ignored) == told


async def test_an_adapter_names_its_base(blobs, folder):
    with pytest.raises(Invalid, match="base_model_version"):
        await receive(announced(GOOD, types.ARTIFACT_KIND_ADAPTER), stream(), folder, blobs, ignored)


def test_what_a_killed_process_left_decrypted_is_gone_after_the_next_start(tmp_path):
    left = tmp_path / "imports" / "tmpx" / "model.safetensors"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"weights")
    ModelVersionServicer(None, None, None, tmp_path / "imports")
    assert not left.exists()
