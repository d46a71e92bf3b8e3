"""Puts the bytes of images into a question that names them by digest; what is in an image is not known here."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from services.evaluator.questions import Question

#: Gives an image, by its digest, with its type, such as `image/png`.
Read = Callable[[str], Awaitable[tuple[str, bytes]]]


async def shown(question: Question, read: Read) -> Question:
    """The question as it is sent: images as `data:` URLs (RFC 2397). Raises as ``read``."""
    messages = question.asked.get("messages")
    if not any(_named(part) for message in messages or () for part in _parts(message)):
        return question
    whole = [
        {**message, "content": [await _shown(part, read) for part in _parts(message)]} for message in messages or ()
    ]
    return replace(question, asked={**question.asked, "messages": whole})


def _parts(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _named(part: Mapping[str, Any]) -> str:
    """The digest of the image that a part names; empty for another part."""
    url = str(part.get("image_url", {}).get("url", ""))
    return url if url.startswith("sha256:") else ""


async def _shown(part: Mapping[str, Any], read: Read) -> Mapping[str, Any]:
    if not (digest := _named(part)):
        return part
    kind, content = await read(digest)
    url = f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
    return {"type": "image_url", "image_url": {"url": url}}
