"""ASGI middleware for an engine's server: POST /entities, where a model that tags tokens answers with spans of texts.

An engine gives the values of each token and neither where that is in the text nor what its tag is called. Knows of the
engine that it answers `{"input": [[token id, …], …]}` at /pooling.
"""

import asyncio
import json
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.gateway.engines.inner import (
    FOLDER,
    LONGEST,
    Application,
    Message,
    Receive,
    Send,
    answer,
    asked,
    cutting_tokenizer,
    read,
)
from sluice.spans import spans_of

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

PATH, POOLING = "/entities", "/pooling"


class NameEntities:
    """Answers /entities by what the application answers at /pooling; all else is the application's."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self.folder = Path(os.environ[FOLDER])
        self.longest = int(os.environ[LONGEST])

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """That of the model."""
        return cutting_tokenizer(self.folder, self.longest)

    @cached_property
    def tags(self) -> list[str]:
        """What the values of a token stand for, in their order."""
        names = json.loads((self.folder / "config.json").read_text("utf-8"))["id2label"]
        return [str(names[place]) for place in sorted(names, key=int)]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            await self.app(scope, receive, send)
            return
        try:
            body = json.loads(await read(receive))
            texts = _texts(body)
        except ValueError:
            error = {"message": "`input` must be a text, or a list of texts.", "type": "BadRequestError", "code": 400}
            await answer(send, 400, json.dumps({"error": error}).encode())
            return
        encodings = await asyncio.to_thread(self.tokenizer.encode_batch, texts)
        pooling = {"model": body.get("model"), "input": [each.ids for each in encodings]}
        status, said = await asked(self.app, scope, receive, POOLING, json.dumps(pooling).encode())
        if status == 200:
            said = await asyncio.to_thread(self._named, texts, encodings, said)
        await answer(send, status, said)

    def _named(self, texts: list[str], encodings: "list[Encoding]", said: bytes) -> bytes:
        pooled = json.loads(said)
        values = {each["index"]: each["data"] for each in pooled["data"]}
        data = []
        for place, (text, encoding) in enumerate(zip(texts, encodings, strict=True)):
            best = [max(zip(of, self.tags, strict=True)) for of in values[place]]
            spans = spans_of(text, encoding.offsets, [tag for _, tag in best], [share for share, _ in best])
            entities = [{**each._asdict(), "text": text[each.start : each.end]} for each in spans]
            data.append({"index": place, "object": "entities", "entities": entities})
        return json.dumps({**pooled, "data": data}, ensure_ascii=False).encode()


def _texts(body: Any) -> list[str]:
    """The texts of a request. Raises ValueError."""
    given = body.get("input") if isinstance(body, dict) else None
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError("no texts")
    return texts
