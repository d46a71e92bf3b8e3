"""Questions about images, videos and sounds, which stand in them by digest; they are read when they are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.evaluator.questions.question import Question
from sluice.rows.sights import Part, parts


def from_sights(row: int, content: Mapping[str, Any], max_tokens: int) -> Question | None:
    """Everything before the last answer asks, with what it is about where its marks are; that answer is the reference.

    None where marks and what the row names differ.
    """
    messages = content["messages"]
    last = max((i for i, each in enumerate(messages) if each["role"] == "assistant"), default=0)
    if not last:
        return None
    try:
        contents = parts(content, [each["content"] for each in messages])
    except ValueError:
        return None
    asked = [
        {"role": each["role"], "content": content_of(of)} for each, of in zip(messages[:last], contents, strict=False)
    ]
    return Question(row, {"messages": asked}, messages[last]["content"])


def content_of(of: Sequence[Part]) -> str | list[dict[str, Any]]:
    """As clients of OpenAI's API put it, with digests for data: a text alone is a string."""
    if all(part.text for part in of):
        return "".join(part.text for part in of)
    return [_part(part) for part in of]


def _part(part: Part) -> dict[str, Any]:
    if part.image:
        return {"type": "image_url", "image_url": {"url": part.image}}
    if part.frames:
        return {"type": "video_url", "video_url": {"url": list(part.frames)}}
    if part.audio:
        return {"type": "input_audio", "input_audio": {"data": part.audio}}
    return {"type": "text", "text": part.text}
