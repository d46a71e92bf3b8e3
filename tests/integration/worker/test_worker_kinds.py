"""Endpoints that do not chat: where they are asked, and that a caller's mistake counts against no version."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from worker_parts import CHAT, PROMPT, Ask, Gateway, answer, name, post

from services.gateway.worker.translation import arm_sample
from sluice.cli import exits, run

ENTITIES, POOLING = "/v1/entities", "/v1/pooling"
EMBEDDINGS, CLASSIFY, RERANK, SCORE = "/v1/embeddings", "/v1/classify", "/v1/rerank", "/v1/score"
PICTURE = "data:image/png;base64,iVBORw0KGgo="


def seen(url: object, **more: object) -> dict[str, Any]:
    """A chat request with a picture."""
    part = {"type": "image_url", "image_url": {"url": url}, **more}
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, part]}]}


async def ask(gateway: Gateway, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    text = json.dumps({"model": "assistant", **body}, separators=(",", ":"))
    status, _, said = await post(gateway, text.encode(), path=path)
    return status, said


def blamed(gateway: Gateway) -> int:
    """Requests that a rollout would count, whether as answers or as errors."""
    return sum(arm_sample(series).requests for series in gateway.worker.figures.drain())


@pytest.mark.parametrize(
    ("interface", "path", "engine_path", "body", "answered"),
    [
        ("embeddings", EMBEDDINGS, "/v1/embeddings", {"input": "x"}, {"data": [{"embedding": [0.5]}]}),
        ("classify", CLASSIFY, "/classify", {"input": ["x"]}, {"data": [{"label": "a", "probs": [1.0]}]}),
        ("rerank", RERANK, "/rerank", {"query": "x", "documents": ["y"]}, {"results": [{"relevance_score": 0.5}]}),
        ("rerank", SCORE, "/score", {"text_1": "x", "text_2": "y"}, {"data": [{"score": 0.5}]}),
        ("entities", ENTITIES, "/entities", {"input": "x"}, {"data": [{"index": 0, "entities": []}]}),
        ("entities", POOLING, "/pooling", {"input": [5, 6]}, {"data": [{"index": 0, "data": [[0.5, 0.5]]}]}),
        ("chat", CHAT, CHAT, seen(PICTURE), {"choices": []}),
    ],
)
async def test_each_interface_has_its_path(
    gateway: Gateway, interface: str, path: str, engine_path: str, body: dict[str, Any], answered: dict[str, Any]
) -> None:
    async def serve(ask: Ask, writer: asyncio.StreamWriter) -> None:
        answer(writer, {"id": "1", "model": ask.body["model"], **answered, "usage": {"prompt_tokens": 3}})

    gateway.one.behavior = serve
    gateway.route(0, interface=interface)
    status, said = await ask(gateway, path, body)
    assert (status, said) == (200, {"id": "1", "model": "assistant", **answered, "usage": {"prompt_tokens": 3}})
    (asked,) = gateway.one.asks
    assert (asked.path, asked.body) == (engine_path, {**body, "model": "m-2"})
    *_, line = await gateway.served()
    assert (line["version"], line["prompt_tokens"]) == (name(2), 3)
    (model,) = [each async for each in gateway.client().models.list()]
    assert model.model_extra == {"interface": interface}


@pytest.mark.parametrize(
    ("interface", "path", "right"),
    [
        ("embeddings", CHAT, EMBEDDINGS),
        ("chat", EMBEDDINGS, CHAT),
        ("rerank", CLASSIFY, RERANK),
        ("chat", SCORE, CHAT),
        ("entities", CHAT, ENTITIES),
        ("embeddings", POOLING, EMBEDDINGS),
    ],
)
async def test_a_wrong_path_is_told_the_right_one(gateway: Gateway, interface: str, path: str, right: str) -> None:
    gateway.route(50, interface=interface)
    for model in ("assistant", "assistant@3"):
        status, said = await ask(gateway, path, {"model": model, "messages": PROMPT, "input": "x"})
        assert (status, said["error"]["code"]) == (400, "wrong_interface")
        assert said["error"]["message"] == f"`{model}` serves {interface}; ask it at {right}."
    assert gateway.one.asks == gateway.two.asks == [] and blamed(gateway) == 0
    assert gateway.worker.rejected["invalid"] == 2


MISTAKES: dict[str, tuple[str, dict[str, Any]]] = {
    "fetched": (CHAT, seen("http://169.254.169.254/latest/meta-data")),
    "fetched securely": (CHAT, seen("https://example.invalid/x.png")),
    "of the engine's disk": (CHAT, seen("file:///etc/passwd")),
    "not in base64": (CHAT, seen("data:text/plain,hello")),
    "in base64 in name only": (CHAT, seen("data:text/plain,x;base64,aGVsbG8=")),
    "no text": (CHAT, seen(None)),
    "a name of somebody else's picture": (CHAT, seen(PICTURE, uuid="1")),
    "short": (CHAT, {"messages": [{"role": "user", "content": [{"image_url": "http://127.0.0.1/x.png"}]}]}),
    "a sound": (CHAT, {"messages": [{"role": "user", "content": [{"audio_url": {"url": "ftp://127.0.0.1/x"}}]}]}),
    "beside a text that is embedded": (EMBEDDINGS, seen("http://127.0.0.1/x.png")),
    "in a document": (RERANK, {"query": "x", "documents": {"content": [{"video_url": {"url": "file:///x"}}]}}),
    "in bytes": (EMBEDDINGS, {"input": "x", "encoding_format": "bytes"}),
    "in too many pieces": (EMBEDDINGS, {"input": ["x"] * 2049}),
    "too many documents": (RERANK, {"query": "x", "documents": ["x"] * 2049}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_what_no_engine_may_see_is_refused_before(gateway: Gateway, mistake: str) -> None:
    path, body = MISTAKES[mistake]
    gateway.route(100, interface={EMBEDDINGS: "embeddings", RERANK: "rerank"}.get(path, "chat"))
    status, said = await ask(gateway, path, body)
    assert (status, said["error"]["code"]) == (400, "invalid_request")
    assert not any(each in said["error"]["message"] for each in ("127.0.0.1", "169.254", "passwd", "hello"))
    assert gateway.two.asks == [] and blamed(gateway) == 0


@pytest.mark.parametrize(
    ("plain", "odd"),
    [
        ('"image_url":', '"image\\u005furl":'),
        ('"content":', '"cont\\u0065nt":'),
        ('"content":', '"content":"x","content" :\n\t '),
        ('"messages": [', '"messages": [3, '),
        ("file:", "file\\u003a"),
    ],
)
async def test_other_spellings_hide_nothing(gateway: Gateway, plain: str, odd: str) -> None:
    body = json.dumps({"model": "assistant", **seen("file:///etc/passwd")})
    assert plain in body
    status, _, said = await post(gateway, body.replace(plain, odd).encode())
    assert (status, said["error"]["code"]) == (400, "invalid_request")
    assert gateway.one.asks == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": PROMPT, "tools": [{"function": {"parameters": {"content": [{"image_url": "string"}]}}}]}),
        (CHAT, {"messages": [{"role": "user", "content": "see http://127.0.0.1/image_url and \u00e9"}]}),
        (EMBEDDINGS, {"input": [101] * 2100, "encoding_format": "base64"}),
        (EMBEDDINGS, {"input": "x", "encoding_format": None, "user": None}),
    ],
)
async def test_what_only_looks_like_a_mistake_passes(gateway: Gateway, path: str, body: dict[str, Any]) -> None:
    gateway.route(0, interface="embeddings" if path == EMBEDDINGS else "chat")
    assert (await ask(gateway, path, body))[0] == 200


@pytest.mark.parametrize(
    ("status", "message", "seen_as", "counted"),
    [
        ("400 Bad Request", "This model is not a multimodal model", 400, 0),
        ("404 Not Found", "Not Found", 400, 0),
        ("501 Not Implemented", "Only base64 data URLs are supported", 400, 0),
        ("404 Not Found", "The model `m-3` does not exist.", 502, 1),  # the engine has lost the version
        ("500 Internal Server Error", "CUDA", 502, 1),
    ],
)
async def test_what_an_engine_does_not_do_is_the_callers_matter(
    gateway: Gateway, status: str, message: str, seen_as: int, counted: int
) -> None:
    async def refuse(ask: Ask, writer: asyncio.StreamWriter) -> None:
        answer(writer, {"error": {"message": message}}, status)

    gateway.two.behavior = refuse
    gateway.route(100)
    got, said = await ask(gateway, CHAT, seen(PICTURE + "A" * 5_000))
    assert (got, blamed(gateway)) == (seen_as, counted)
    assert said["error"]["message"].startswith("This model") is message.startswith("This model")


@pytest.mark.parametrize(
    ("interface", "path", "body", "fix"),
    [
        ("embeddings", EMBEDDINGS, {"input": ["x"] * 9}, "send fewer texts at once"),
        ("chat", CHAT, {"messages": PROMPT, "n": 99, "logprobs": True}, "ask for fewer tokens, choices or logprobs"),
    ],
)
async def test_an_answer_that_is_too_long_to_hold_is_the_callers_matter(
    gateway: Gateway, interface: str, path: str, body: dict[str, Any], fix: str
) -> None:
    async def huge(ask: Ask, writer: asyncio.StreamWriter) -> None:
        answer(writer, {"data": ["y" * 2_000_000]})

    gateway.two.behavior = huge
    gateway.route(100, interface=interface)
    status, said = await ask(gateway, path, body)
    assert (status, blamed(gateway)) == (413, 0) and fix in said["error"]["message"]


async def test_who_is_not_admitted_has_nothing_decoded(gateway: Gateway) -> None:
    gateway.route(0)
    bad = seen("file:///etc/passwd")
    for model, path, code in (("nobody", CHAT, "model_not_found"), ("assistant", EMBEDDINGS, "wrong_interface")):
        assert (await ask(gateway, path, {"model": model, **bad}))[1]["error"]["code"] == code


def answers(ask: Ask) -> dict[str, Any]:
    """Of an embedder, a classifier, a tagger and a reranker, out of order as they may be."""
    if ask.path == "/v1/embeddings":
        vectors = [[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]]
        return {"data": [{"index": place, "embedding": vectors[place]} for place in (1, 0)]}
    if ask.path == "/classify":
        return {"data": [{"index": place, "label": "card", "probs": [0.25, 0.75]} for place in (1, 0)]}
    if ask.path == "/entities":
        span = {"start": 0, "end": 1, "label": "PER", "score": 0.5}
        return {"data": [{"index": place, "entities": [{**span, "text": "ab"[place]}]} for place in (1, 0)]}
    return {"results": [{"index": place, "relevance_score": place / 4} for place in (1, 0)]}


@pytest.mark.parametrize(
    ("interface", "shown"),
    [
        ("embeddings", [["TEXT", "DIMENSIONS", "NEAR THE FIRST", "VECTOR"], ["a", "3", "1"], ["b", "3", "0.6"]]),
        ("classify", [["TEXT", "CLASS", "PROBABILITY"], ["a", "card", "0.75"], ["b", "card", "0.75"]]),
        (
            "entities",
            [["TEXT", "ENTITY", "LABEL", "PLACE", "PROBABILITY"], ["a", "PER", "0:1", "0.5"], ["b", "PER", "0:1"]],
        ),
        ("rerank", [["RANK", "SCORE", "TEXT"], ["1", "0.25", "c"], ["2", "0", "b"]]),
    ],
)
async def test_the_command_line_asks_what_an_endpoint_serves(
    gateway: Gateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    interface: str,
    shown: list[list[str]],
) -> None:
    async def serve(ask: Ask, writer: asyncio.StreamWriter) -> None:
        answer(writer, {"model": ask.body["model"], **answers(ask)})

    async def sluice(*arguments: str) -> int:
        return await asyncio.to_thread(run, [*arguments, "--http", gateway.url])

    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    monkeypatch.setenv("SLUICE_API_KEY", "sk-user")
    gateway.one.behavior = serve
    gateway.route(0, interface=interface)
    texts = ["a", "b", "c"] if interface == "rerank" else ["a", "b"]
    assert await sluice("ask", "assistant@2", *texts) == exits.OK
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()] == [row[0] for row in shown]
    assert all(cell in line for row, line in zip(shown, said.out.splitlines(), strict=True) for cell in row)
    assert "answered by m@2" in said.err
    assert await sluice("ask", "assistant", *texts, "--json") == exits.OK
    assert json.loads(capsys.readouterr().out)["model"] == "assistant"
    assert await sluice("chat", "assistant", "hello") == exits.INVALID
    assert f"`assistant` serves {interface}; ask it at" in (said := capsys.readouterr()).err
    assert "`sluice ask assistant TEXT…` does" in said.err
    assert await sluice("ask", "nothing", "a") == exits.NOT_FOUND
    gateway.route(0)
    assert await sluice("ask", "assistant", "a") == exits.INVALID
    assert "`sluice chat assistant TEXT` talks to it" in capsys.readouterr().err
