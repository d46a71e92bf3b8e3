"""What an engine answers of an image and of a text apart becomes one answer, as the head's formula has it."""

import base64
import contextlib
import io
import json
import struct
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import numpy
import pytest
import safetensors.numpy
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.gateway.engines.errors import EngineError
from services.gateway.engines.fuse_classes import UNSOUND, WANTED, FuseClasses
from services.gateway.engines.inner import FOLDER, LONGEST
from services.gateway.engines.openai_http import prove
from services.gateway.engines.protocol import Launch, Task
from services.gateway.engines.vllm import VllmEngine
from sluice.fusion import HEAD, WEIGHTS, read_head

tokenizers = pytest.importorskip("tokenizers")
WORDS = ["[UNK]", "[CLS]", "[SEP]", "is", "it", "odd"]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SEEN, READ = [3.0, 4.0], [0.0, 2.0]


def head() -> dict[str, numpy.ndarray]:
    drawn = numpy.random.default_rng(5)
    shapes = {"dense.weight": (2, 4), "dense.bias": (2,), "out_proj.weight": (3, 2), "out_proj.bias": (3,)}
    return {name: drawn.normal(size=shape).astype("float32") for name, shape in shapes.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"1": "b", "0": "a", "2": "c"}}))
    (tmp_path / HEAD).mkdir()
    safetensors.numpy.save_file(head(), tmp_path / HEAD / WEIGHTS)
    return tmp_path


async def embedded(request: Request) -> Response:
    body = await request.json()
    if body["model"] != "m":
        return JSONResponse({"error": {"message": "no such model"}}, 404)
    if "input" in body:
        assert body["input"] in ([[1, 3, 4, 5, 2]], [[1, 3, 4, 3, 4, 2]])  # the end is kept where the rest is cut
        vector, tokens = READ, len(body["input"][0])
    else:
        assert body["messages"] == [{"role": "user", "content": [IMAGE]}]
        vector, tokens = SEEN, 1
    return JSONResponse({"model": "m", "data": [{"embedding": vector}], "usage": {"prompt_tokens": tokens}})


async def asked(folder: Path, monkeypatch: pytest.MonkeyPatch, **body: Any) -> httpx.Response:
    monkeypatch.setenv(FOLDER, str(folder))
    monkeypatch.setenv(LONGEST, "6")
    app = FuseClasses(Starlette(routes=[Route("/v1/embeddings", embedded, methods=["POST"])]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as client:
        return await client.post("/classify", json={"model": "m", **body})


def content(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [IMAGE, {"type": "text", "text": text}]}]


async def test_both_vectors_are_brought_to_one_length_and_make_the_classes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = head()
    both = numpy.array([0.6, 0.8, 0.0, 1.0]) * 2**0.5
    wanted = layers["out_proj.weight"] @ numpy.tanh(layers["dense.weight"] @ both + layers["dense.bias"])
    wanted += layers["out_proj.bias"]
    answer = (await asked(folder, monkeypatch, messages=content("is it odd\n"), use_activation=False)).json()
    (found,) = answer["data"]
    assert found["probs"] == pytest.approx(wanted.tolist(), abs=1e-6) and found["num_classes"] == 3
    assert found["label"] == "abc"[int(wanted.argmax())] and answer["usage"]["prompt_tokens"] == 5
    (found,) = (await asked(folder, monkeypatch, messages=content(" is it is it is it"))).json()["data"]
    assert found["probs"] == pytest.approx((numpy.exp(wanted) / numpy.exp(wanted).sum()).tolist(), abs=1e-6)
    config = {"id2label": {"0": "a", "1": "b", "2": "c"}, "problem_type": "multi_label_classification"}
    (folder / "config.json").write_text(json.dumps(config))
    (found,) = (await asked(folder, monkeypatch, messages=content("is it odd"))).json()["data"]
    assert found["probs"] == pytest.approx((1 / (1 + numpy.exp(-wanted))).tolist(), abs=1e-6)


async def test_what_is_not_one_image_and_a_text_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [{"role": "user", "content": [IMAGE]}]
    twice = [{"role": "user", "content": [IMAGE, IMAGE, {"type": "text", "text": "is"}]}]
    for wrong in (
        {"input": "is"},
        {"messages": alone},
        {"messages": twice},
        {"messages": content(" ")},
        {"messages": 3},
    ):
        answer = await asked(folder, monkeypatch, **wrong)
        assert answer.status_code == 400 and answer.json()["error"]["message"] == WANTED


async def test_what_the_engine_refuses_is_passed_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = await asked(folder, monkeypatch, messages=content("is it odd"), model="other")
    assert (answer.status_code, answer.json()) == (404, {"error": {"message": "no such model"}})


@pytest.mark.parametrize(("status", "sound"), [(200, True), (400, False)])
async def test_a_model_that_refuses_a_text_alone_is_proven_with_an_image(status: int, sound: bool) -> None:
    async def classified(request: Request) -> Response:
        body = await request.json()
        if "input" in body:
            return JSONResponse({"error": {"message": WANTED}}, 400)
        image, text = body["messages"][0]["content"]
        Image.open(io.BytesIO(base64.b64decode(image["image_url"]["url"].partition(",")[2]))).load()
        assert text["type"] == "text" and body["use_activation"] is False
        return JSONResponse({"data": [{"probs": [0.5, -1.5]}]}, status)

    app = Starlette(routes=[Route("/classify", classified, methods=["POST"])])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as client:
        with contextlib.nullcontext() if sound else pytest.raises(EngineError, match="answered 400"):
            await prove(client, "classify", "m")


@pytest.mark.parametrize(("task", "there"), [("classify", True), ("embed", False)])
def test_the_head_is_put_before_a_classifier_that_has_one_beside_its_encoders(
    folder: Path, tmp_path: Path, task: Task, there: bool
) -> None:
    launch = Launch(model_dir=folder, model="m", port=1, key="k", cache_dir=tmp_path, task=task)
    command = VllmEngine().command(launch)
    middleware = [command.argv[place + 1] for place, word in enumerate(command.argv) if word == "--middleware"]
    inner = ["services.gateway.engines.fuse_classes.FuseClasses"] if there else []
    assert middleware == [*inner, "services.gateway.engines.require_key.RequireKey"], "the last one is the outermost"
    assert (command.env.get(FOLDER) == str(folder)) is there
    assert getattr(import_module(middleware[0].rpartition(".")[0]), middleware[0].rpartition(".")[2])


async def test_figures_that_are_not_finite_are_an_error_in_json(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors.numpy.save_file(
        {**head(), "out_proj.bias": numpy.full(3, numpy.nan, "float32")}, folder / HEAD / WEIGHTS
    )
    answer = await asked(folder, monkeypatch, messages=content("is it odd"))
    assert answer.status_code == 500 and answer.json()["error"]["message"] == UNSOUND


@pytest.mark.parametrize(
    ("layers", "config", "says"),
    [
        ({}, {}, ""),
        ({}, {"projection_dim": 2}, ""),
        ({}, {"projection_dim": 3}, "does not fit its 3 classes and its encoders"),
        ({"out_proj.weight": (2, 2)}, {}, "does not fit its 3 classes"),
        ({"dense.bias": (3,)}, {}, "does not fit its 3 classes"),
        ({"dense.weight": None}, {}, "does not fit its 3 classes"),
        ({"dense.weight": (2, 3)}, {"projection_dim": 2}, "does not fit its 3 classes"),
    ],
)
def test_a_head_that_fits_nothing_is_found_before_an_engine_starts(
    folder: Path, tmp_path: Path, layers: dict[str, Any], config: dict[str, Any], says: str
) -> None:
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, **config}))
    made = {**head(), **{name: numpy.zeros(shape, "float32") for name, shape in layers.items() if shape}}
    left = {name: layer for name, layer in made.items() if layers.get(name, ()) is not None}
    safetensors.numpy.save_file(left, folder / HEAD / WEIGHTS)
    launch = Launch(model_dir=folder, model="m", port=1, key="k", cache_dir=tmp_path, task="classify")
    with pytest.raises(EngineError, match=says) if says else contextlib.nullcontext():
        VllmEngine().command(launch)


def test_a_head_in_bfloat16_is_read(folder: Path) -> None:
    halves = {name: (layer.view("<u4") >> 16).astype("<u2") for name, layer in head().items()}
    header, data = {}, b""
    for name, half in halves.items():
        place = [len(data), len(data) + half.nbytes]
        header[name] = {"dtype": "BF16", "shape": list(half.shape), "data_offsets": place}
        data += half.tobytes()
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    (folder / HEAD / WEIGHTS).write_bytes(struct.pack("<Q", len(told)) + told + data)
    found = read_head(folder)
    for name, half in halves.items():
        assert found[name].dtype == "float32" and (found[name].view("<u4") == half.astype("<u4") << 16).all()
    (folder / HEAD / WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(ValueError, match="no floats"):
        read_head(folder)
