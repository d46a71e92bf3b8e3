"""ASGI middleware for an engine's server: POST /classify, where a model with an encoder of images and one of texts has
a head on the vectors of both.

An engine gives the vector of one or the other. Knows of the engine that it answers `{"input": [[token id, …]]}` and
messages with one image at /v1/embeddings.
"""

import asyncio
import json
import os
import time
import uuid
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.gateway.engines.errors import EngineError
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
from sluice.fusion import HEAD, is_whole, read_head, shares, values, words

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from sluice.fusion import Array

PATH, EMBEDDINGS = "/classify", "/v1/embeddings"
WANTED = "`messages` must have one image, as an image_url part with a data URL, and text parts; send both."

UNSOUND = "The model answers with figures that are not finite; look for NaN or infinity in its weights."


def check_head(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises EngineError where the head on both vectors cannot be read, or does not fit its classes and encoders."""
    classes, width = len(config.get("id2label") or ()), config.get("projection_dim")
    try:
        whole = is_whole(read_head(folder), classes, width if isinstance(width, int) else None)
    except (OSError, ValueError) as broken:
        raise EngineError(f"{HEAD} of {folder.name} cannot be read.", "Export the model again.") from broken
    if not whole:
        reason = f"{HEAD} of {folder.name} does not fit its {classes} classes and its encoders, or is not finite."
        raise EngineError(reason, "Export the model again.")


class FuseClasses:
    """Answers /classify by what the application answers at /v1/embeddings; all else is the application's."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self.folder = Path(os.environ[FOLDER])
        self.longest = int(os.environ[LONGEST])

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """That of the model."""
        return cutting_tokenizer(self.folder, self.longest)

    @cached_property
    def head(self) -> "dict[str, Array]":
        """The layers on both vectors."""
        return read_head(self.folder)

    @cached_property
    def config(self) -> dict[str, Any]:
        """What the model says of itself."""
        found: dict[str, Any] = json.loads((self.folder / "config.json").read_text("utf-8"))
        return found

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            await self.app(scope, receive, send)
            return
        try:
            body = json.loads(await read(receive))
            text, image = _parts(body)
        except (ValueError, TypeError, KeyError, AttributeError):
            error = {"message": WANTED, "type": "BadRequestError", "code": 400}
            await answer(send, 400, json.dumps({"error": error}).encode())
            return
        encoding = await asyncio.to_thread(self.tokenizer.encode, text)
        found = []
        for way in ({"input": [encoding.ids]}, {"messages": [{"role": "user", "content": [image]}]}):
            request = {"model": body.get("model"), "encoding_format": "float", **way}
            status, said = await asked(self.app, scope, receive, EMBEDDINGS, json.dumps(request).encode())
            if status != 200:
                await answer(send, status, said)
                return
            found.append(json.loads(said))
        told = self._told(found, body.get("use_activation"))
        try:
            whole = json.dumps(told, ensure_ascii=False, allow_nan=False)
        except ValueError:  # no JSON has NaN or infinity
            error = {"message": UNSOUND, "type": "InternalServerError", "code": 500}
            await answer(send, 500, json.dumps({"error": error}).encode())
            return
        await answer(send, 200, whole.encode())

    def _told(self, found: list[dict[str, Any]], use_activation: bool | None) -> dict[str, Any]:
        """As vLLM answers for models that have such a head themselves."""
        text, image = (each["data"][0]["embedding"] for each in found)
        made = values(self.head, image, text)
        if use_activation is not False:
            made = shares(made, self.config.get("problem_type") == "multi_label_classification")
        label = self.config["id2label"][str(int(made.argmax()))]
        tokens = found[0]["usage"]["prompt_tokens"]  # an image is none to an encoder of its own
        return {
            "id": f"classify-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": found[0]["model"],
            "data": [{"index": 0, "label": label, "probs": made.tolist(), "num_classes": len(made)}],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
        }


def _parts(body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The text of a request and the part with its image. Raises ValueError, or one of its kin for another shape."""
    contents = [message["content"] for message in body["messages"]]
    listed = [[{"type": "text", "text": each}] if isinstance(each, str) else each for each in contents]
    parts = [part for each in listed for part in each]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    (image,) = (part for part in parts if part["type"] != "text")
    if image["type"] != "image_url" or not (text := words(texts)):
        raise ValueError("no image, or no text")
    return text, image
