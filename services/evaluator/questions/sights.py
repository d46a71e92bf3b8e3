"""Questions about images, which stand in them by digest; they are read when they are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.evaluator.questions.question import Question
from sluice.rows.sights import Part, parts


def from_sights(row: int, content: Mapping[str, Any], max_tokens: int) -> Question | None:
    """Everything before the last answer asks, images where their marks are; that answer is the reference.

    None for a row with sounds, which no engine here hears, and where marks and images differ.
    """
    messages = content["messages"]
    last = max((i for i, each in enumerate(messages) if each["role"] == "assistant"), default=0)
    if not last or content.get("audios"):
        return None
    try:
        contents = parts(content, [each["content"] for each in messages])
    except ValueError:
        return None
    asked = [
        {"role": each["role"], "content": _content(of)} for each, of in zip(messages[:last], contents, strict=False)
    ]
    return Question(row, {"messages": asked}, messages[last]["content"])


def _content(of: Sequence[Part]) -> str | list[dict[str, Any]]:
    """As clients of OpenAI's API put it: a text alone is a string."""
    if not any(part.image for part in of):
        return "".join(part.text for part in of)
    return [
        {"type": "image_url", "image_url": {"url": part.image}} if part.image else {"type": "text", "text": part.text}
        for part in of
    ]
