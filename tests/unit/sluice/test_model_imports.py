"""Models found in mirrors of each layout, and folders that are refused before anything of them is sent."""

import io
import json
import pickle
import struct
from contextlib import nullcontext
from pathlib import Path

import pytest

from kit.rpc.errors import Invalid, NotFound
from sluice import weights
from sluice.client.imports import model_files
from sluice.client.mirrors import find
from sluice.errors import v1 as errors
from tests.weights import folder_of, safetensors

REVISION = "9f3c1a7be1d64a6e8a3c0f3bb3d4f6a5b7c8d9e0"


def cached(mirror: Path, revision: str = REVISION, mark: int = 0) -> Path:
    """A model as Hugging Face's cache keeps it: links in a snapshot, contents by digest beside."""
    model = mirror / "models--qwen--Qwen-7B"
    there = folder_of(model / "made" / revision, mark=mark)
    snapshot = model / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (model / "blobs").mkdir(exist_ok=True)
    for file in there.iterdir():
        blob = file.rename(model / "blobs" / f"{revision}-{file.name}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    return snapshot


@pytest.mark.parametrize(
    "where",
    ["qwen/Qwen-7B", "Qwen/qwen-7b", "hub/qwen/Qwen-7B", "hub/models/qwen/Qwen-7B", "models/qwen/Qwen-7B"],
)
def test_a_model_is_found_in_the_layouts_of_the_field(tmp_path, where):
    folder = folder_of(tmp_path / "mirror" / where)
    assert find(tmp_path / "mirror", "qwen/Qwen-7B").resolve() == folder.resolve()


def test_modelscope_writes_a_dot_as_three_underscores(tmp_path):
    folder = folder_of(tmp_path / "hub" / "models" / "Qwen" / "Qwen2___5-7B")
    assert find(tmp_path, "Qwen/Qwen2.5-7B") == folder


def test_one_model_is_found_under_its_own_name_alone(tmp_path):
    folder = folder_of(tmp_path / "qwen2.5-7b")
    assert find(folder, "Qwen/Qwen2.5-7B") == folder
    with pytest.raises(
        NotFound, match=r"is one model and not called `Qwen-7B`; .* without --from: sluice models import"
    ):
        find(folder, "qwen/Qwen-7B")


@pytest.mark.parametrize("under", ["", "hub"])
def test_a_cache_of_hugging_face_is_read_through_its_links(tmp_path, under):
    snapshot = cached(tmp_path / under)
    assert find(tmp_path, "qwen/Qwen-7B") == snapshot
    assert set(model_files(snapshot).files) == {"config.json", "model.safetensors"}


def test_of_several_revisions_main_is_taken_or_one_is_named(tmp_path):
    first, second = cached(tmp_path), cached(tmp_path, "b" * 40, 1)
    with pytest.raises(Invalid, match=r"the revisions 9f3c1a7be1d6, bbbbbbbbbbbb; say which with --revision"):
        find(tmp_path, "qwen/Qwen-7B")
    assert find(tmp_path, "qwen/Qwen-7B", "9f3c") == first
    (first.parents[1] / "refs").mkdir()
    (first.parents[1] / "refs" / "main").write_text("b" * 40)
    assert find(tmp_path, "qwen/Qwen-7B") == second


@pytest.mark.parametrize(
    ("source_id", "kind", "words"),
    [
        ("qwen/Qwen-14B", NotFound, r"has no `qwen/Qwen-14B`; it was looked for as qwen/Qwen-14B/, models--qwen--"),
        ("Qwen-7B", Invalid, "is no id of a model elsewhere; write it as organization/model: qwen/Qwen-7B"),
        ("../../etc", Invalid, "is no id of a model elsewhere"),
    ],
)
def test_what_a_mirror_does_not_have(tmp_path, source_id, kind, words):
    folder_of(tmp_path / "qwen" / "Qwen-7B")
    with pytest.raises(kind, match=words):
        find(tmp_path, source_id)


def refused(folder: Path, words: str) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        model_files(folder)
    assert caught.value.reason == errors.ERROR_REASON_MODEL_REJECTED


def test_only_what_is_loaded_is_taken_and_the_rest_is_told(tmp_path):
    folder = folder_of(tmp_path / "m")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(print))
    (folder / "convert.py").write_text("print()")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}")
    (folder / ".gitattributes").write_text("")
    found = model_files(folder)
    assert list(found.files) == ["config.json", "model.safetensors"]
    assert set(found.left_out) == {"pytorch_model.bin", "convert.py", "onnx/config.json"}


def test_what_the_suite_writes_beside_weights_is_no_part_of_them(tmp_path):
    folder = folder_of(tmp_path / "m")
    records = ["events.out.tfevents.1.sluice", "job.json", "sluice-manifest.json", "steps.jsonl", "train.log"]
    for name in records:
        (folder / name).write_text("{}")
    found = model_files(folder)
    assert list(found.files) == ["config.json", "model.safetensors"] and found.left_out == records


def test_pickles_are_refused_by_what_they_are_not_by_their_name(tmp_path):
    folder = folder_of(tmp_path / "m")
    (folder / "tokenizer.model").write_bytes(pickle.dumps(print))
    refused(folder, r"`tokenizer.model` is a pickle or an archive inside, which runs code")
    (folder / "tokenizer.model").unlink()
    (folder / "model.safetensors").write_bytes(pickle.dumps(print))
    refused(folder, "`model.safetensors` is not a safetensors file inside")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, r"has no \*.safetensors but `pytorch_model.bin`, a pickle, which runs code when it is read; save")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_model_that_brings_code_is_refused(tmp_path, name):
    folder = folder_of(tmp_path / "m")
    (folder / name).write_text(json.dumps({"auto_map": {"AutoModel": "modeling_qwen.QWenLMHeadModel"}}))
    refused(folder, f"`{name}` asks for code that comes with the model .* never runs; take a release")


def test_a_link_leads_nowhere_but_into_the_mirror(tmp_path):
    folder = folder_of(tmp_path / "mirror" / "qwen" / "Qwen-7B")
    (tmp_path / "secret.txt").write_text("not for the suite")
    (folder / "notes.txt").symlink_to(tmp_path / "secret.txt")
    refused(folder, "`notes.txt` is a link that leads out of")


def sharded(folder: Path, **config: int) -> Path:
    """Two layers in two files, with an embedding of 10 words and 4 numbers each."""
    folder_of(folder, config={"vocab_size": 10, "hidden_size": 4, "num_hidden_layers": 2, **config})
    (folder / "model.safetensors").unlink()
    parts = {
        "model-1-of-2.safetensors": {"model.embed_tokens.weight": (10, 4), "model.layers.0.mlp.weight": (2, 2)},
        "model-2-of-2.safetensors": {"model.layers.1.mlp.weight": (2, 2)},
    }
    for name, shapes in parts.items():
        (folder / name).write_bytes(safetensors(**shapes))
    index = {"weight_map": {tensor: name for name, shapes in parts.items() for tensor in shapes}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_weights_in_several_files_are_those_that_the_index_names(tmp_path):
    folder = sharded(tmp_path / "m")
    (folder / "consolidated.safetensors").write_bytes(safetensors())
    found = model_files(folder)
    assert found.left_out == ["consolidated.safetensors"] and len(found.files) == 4


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"vocab_size": 11}, "has 10 × 4 numbers, and config.json says 11 × 4"),
        ({"hidden_size": 8}, "has 10 × 4 numbers, and config.json says 10 × 8"),
        ({"num_hidden_layers": 3}, "the weights have 2 layers, and config.json says 3; fetch the files"),
    ],
)
def test_shapes_are_those_of_the_config(tmp_path, config, words):
    refused(sharded(tmp_path / "m", **config), words)


def test_a_download_that_did_not_end_is_refused(tmp_path):
    folder = sharded(tmp_path / "m")
    whole = (folder / "model-2-of-2.safetensors").read_bytes()
    (folder / "model-2-of-2.safetensors").write_bytes(whole[:-1])
    refused(folder, "`model-2-of-2.safetensors` is not a safetensors file inside")
    (folder / "model-2-of-2.safetensors").write_bytes(safetensors())
    refused(folder, "lacks `model.layers.1.mlp.weight`, which")
    (folder / "model-2-of-2.safetensors").unlink()
    refused(folder, "names `model-2-of-2.safetensors`, which is not there")


@pytest.mark.parametrize(
    ("shape", "sound"),
    [([0, 3], True), ([True, 4], False), ([2.0, 2], False), ([-2, -2], False), ([1] * 64 + [4], False), ("4", False)],
)
def test_a_shape_is_of_few_whole_numbers(shape, sound):
    size = 0 if sound else 4
    text = json.dumps({"w": {"dtype": "U8", "shape": shape, "data_offsets": [0, size]}}).encode()
    content = struct.pack("<Q", len(text)) + text + b"\0" * size
    with nullcontext() if sound else pytest.raises(Invalid, match="`m` is not a safetensors file inside"):
        weights.tensors_of(io.BytesIO(content), len(content), "m")


def test_what_a_folder_says_costs_no_more_than_it_is_long(tmp_path):
    refused(sharded(tmp_path / "layers", num_hidden_layers=10**15), "have 2 layers, and config.json says 10000")
    text = json.dumps({"w": {"dtype": "U8", "shape": [10**4000, 0], "data_offsets": [0, 0]}}).encode()
    with pytest.raises(Invalid, match="`m` is not a safetensors file inside"):
        weights.tensors_of(io.BytesIO(struct.pack("<Q", len(text)) + text), 8 + len(text), "m")
    with pytest.raises(Invalid, match=r"`tokenizer.json` has 67108865 bytes, and no \.json of a model has more"):
        weights.check_size("tokenizer.json", 64 * 2**20 + 1)


def test_names_that_no_release_has_are_refused(tmp_path):
    folder = sharded(tmp_path / "m")
    (folder / weights.INDEX).write_text(json.dumps({"weight_map": {"w": ["a"], "v": "model-1-of-2.safetensors"}}))
    refused(folder, "names no file for `w`; fetch it again")
    folder = folder_of(tmp_path / "n", config={"num_hidden_layers": 1})
    (folder / "model.safetensors").write_bytes(safetensors(**{f"layers.{'1' * 5000}.w": (2,)}))
    refused(folder, "number a layer with more than 6 digits")
