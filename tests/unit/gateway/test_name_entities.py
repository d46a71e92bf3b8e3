"""The spans that an engine answers with are those of its tokens, whatever the tokenizer's file says of lengths."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.gateway.engines.inner import FOLDER, LONGEST
from services.gateway.engines.name_entities import NameEntities

tokenizers = pytest.importorskip("tokenizers")
WORDS = ["[UNK]", "[CLS]", "[SEP]", "Ann", "Lee", "in", "York"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    made.enable_padding(length=16)
    made.enable_truncation(3)
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"1": "B-PER", "0": "O", "2": "I-PER"}}))
    return tmp_path


async def pooled(request: Request) -> Response:
    """A tag by the id of each token: Ann begins a name, and Lee and York go on with one."""
    body = await request.json()
    if body["model"] != "m":
        return JSONResponse({"error": {"message": "no such model"}}, 404)
    assert request.headers["content-length"] == str(len(await request.body()))
    share = {3: [0.2, 0.7, 0.1], 4: [0.1, 0.0, 0.9], 6: [0.4, 0.1, 0.5]}
    data = [
        {"index": place, "data": [share.get(token, [1.0, 0, 0]) for token in ids]}
        for place, ids in enumerate(body["input"])
    ]
    return JSONResponse({"model": "m", "data": data[::-1], "usage": {"prompt_tokens": sum(map(len, body["input"]))}})


async def asked(folder: Path, monkeypatch: pytest.MonkeyPatch, **body: Any) -> httpx.Response:
    monkeypatch.setenv(FOLDER, str(folder))
    monkeypatch.setenv(LONGEST, "6")
    app = NameEntities(Starlette(routes=[Route("/pooling", pooled, methods=["POST"])]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as client:
        return await client.post("/entities", json={"model": "m", **body})


async def test_tokens_become_spans(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = await asked(folder, monkeypatch, input=["Lee in", "Ann  Lee in York Ann"])
    assert answer.status_code == 200 and answer.json()["usage"] == {"prompt_tokens": 10}
    first, second = answer.json()["data"]
    assert first["entities"] == [{"start": 0, "end": 3, "label": "PER", "score": 0.9, "text": "Lee"}]
    assert [(each["text"], each["start"]) for each in second["entities"]] == [("Ann  Lee", 0), ("York", 12)]
    assert second["entities"][0]["score"] == pytest.approx(0.8)  # the second Ann is beyond what the engine takes


async def test_what_is_no_text_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (3, [], [3], None):
        answer = await asked(folder, monkeypatch, input=wrong)
        assert answer.status_code == 400 and answer.json()["error"]["message"].startswith("`input` must be a text")


async def test_what_the_engine_refuses_is_passed_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = await asked(folder, monkeypatch, input="Ann", model="other")
    assert (answer.status_code, answer.json()) == (404, {"error": {"message": "no such model"}})
