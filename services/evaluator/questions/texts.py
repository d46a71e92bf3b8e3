"""Questions that are answered in words: conversations and plain texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.evaluator.questions.question import Question
from services.evaluator.scripts import head, is_mostly_cjk, starts


def from_conversation(row: int, content: Mapping[str, Any], max_tokens: int) -> Question | None:
    """Everything before the assistant's last turn asks; that turn is the reference."""
    messages = content["messages"]
    last = max((i for i, each in enumerate(messages) if each["role"] == "assistant"), default=0)
    return Question(row, {"messages": messages[:last]}, messages[last]["content"]) if last else None


def from_text(row: int, content: Mapping[str, Any], max_tokens: int) -> Question | None:
    """The first half of a text asks, the second is the reference: by words, or characters where words have no spaces.

    A token is at most a word, so no more than ``max_tokens`` words of the reference count, and of the answer as
    many as of the reference. None for a text too short to be halved.
    """
    text = content["text"].strip()
    by_character = is_mostly_cjk(text) or len(text.split()) == 1
    places = starts(text, by_character)
    if len(places) < 2:
        return None
    middle = places[(len(places) + 1) // 2]
    pieces = min(len(places) // 2, max_tokens)
    reference = head(text[middle:], pieces, by_character)
    return Question(row, {"prompt": text[:middle].rstrip()}, reference, pieces)
