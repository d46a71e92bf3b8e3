"""ASGI middleware for an engine's server: POST /entities, where a model that tags tokens answers with spans of texts.

An engine gives the values of each token and neither where that is in the text nor what its tag is called. Knows of the
engine that it answers `{"input": [[token id, …], …]}` at /pooling.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sluice.spans import spans_of

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

PATH, POOLING = "/entities", "/pooling"
#: The folder of the model, and the most tokens of a text: what is beyond them is cut off.
FOLDER, LONGEST = "SLUICE_ENTITIES_MODEL", "SLUICE_ENTITIES_MAX_LENGTH"

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]


class NameEntities:
    """Answers /entities by what the application answers at /pooling; all else is the application's."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app
        self.folder = Path(os.environ[FOLDER])
        self.longest = int(os.environ[LONGEST])

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """That of the model, which cuts and does not fill up, whatever its file says."""
        from tokenizers import Tokenizer

        found = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        found.no_padding()
        found.enable_truncation(self.longest)
        return found

    @cached_property
    def tags(self) -> list[str]:
        """What the values of a token stand for, in their order."""
        names = json.loads((self.folder / "config.json").read_text("utf-8"))["id2label"]
        return [str(names[place]) for place in sorted(names, key=int)]

    async def __call__(self, scope: _Message, receive: _Receive, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            await self.app(scope, receive, send)
            return
        try:
            body = json.loads(await _read(receive))
            texts = _texts(body)
        except ValueError:
            error = {"message": "`input` must be a text, or a list of texts.", "type": "BadRequestError", "code": 400}
            await _answer(send, 400, json.dumps({"error": error}).encode())
            return
        encodings = await asyncio.to_thread(self.tokenizer.encode_batch, texts)
        asked = {"model": body.get("model"), "input": [each.ids for each in encodings]}
        status, said = await self._pooled(scope, receive, json.dumps(asked).encode())
        if status == 200:
            said = await asyncio.to_thread(self._named, texts, encodings, said)
        await _answer(send, status, said)

    async def _pooled(self, scope: _Message, receive: _Receive, body: bytes) -> tuple[int, bytes]:
        """Status and body of the application's answer at /pooling."""
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        inner = {**scope, "path": POOLING, "raw_path": POOLING.encode(), "headers": headers}
        rest: list[_Message] = [{"type": "http.request", "body": body, "more_body": False}]
        status, pieces = 500, []

        async def given() -> _Message:
            return rest.pop() if rest else await receive()  # after the body, whether the client is gone

        async def kept(message: _Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            pieces.append(message.get("body", b""))

        await self.app(inner, given, kept)
        return status, b"".join(pieces)

    def _named(self, texts: list[str], encodings: "list[Encoding]", said: bytes) -> bytes:
        answer = json.loads(said)
        pooled = {each["index"]: each["data"] for each in answer["data"]}
        data = []
        for place, (text, encoding) in enumerate(zip(texts, encodings, strict=True)):
            best = [max(zip(values, self.tags, strict=True)) for values in pooled[place]]
            spans = spans_of(text, encoding.offsets, [tag for _, tag in best], [share for share, _ in best])
            entities = [{**each._asdict(), "text": text[each.start : each.end]} for each in spans]
            data.append({"index": place, "object": "entities", "entities": entities})
        return json.dumps({**answer, "data": data}, ensure_ascii=False).encode()


async def _read(receive: _Receive) -> bytes:
    pieces, more = [], True
    while more:
        message = await receive()
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(pieces)


def _texts(body: Any) -> list[str]:
    """The texts of a request. Raises ValueError."""
    given = body.get("input") if isinstance(body, dict) else None
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError("no texts")
    return texts


async def _answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
