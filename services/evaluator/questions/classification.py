"""Questions that are answered with labels, of a text or of spans of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from services.evaluator.questions.question import Question
from services.evaluator.questions.sights import content_of
from sluice.rows.sights import parts
from sluice.spans import Span


def from_classification(row: int, content: Mapping[str, Any], max_tokens: int) -> Question:
    """The text asks; all of its labels are the reference."""
    return Question(row, {"text": content["text"]}, _labels(content), kind="labels")


def from_labeled_sights(row: int, content: Mapping[str, Any], max_tokens: int) -> Question | None:
    """The text asks, with its images where their marks are; all of its labels are the reference.

    None where marks and what the row names differ.
    """
    try:
        (of,) = parts(content, [content["text"]])
    except ValueError:
        return None
    asked = {"messages": [{"role": "user", "content": content_of(of)}]}
    return Question(row, asked, _labels(content), kind="labels")


def from_entities(row: int, content: Mapping[str, Any], max_tokens: int) -> Question:
    """The text asks; every span of it, by place and name, is the reference."""
    spans = sorted(Span(each["start"], each["end"], each["label"]).key for each in content["entities"])
    return Question(row, {"text": content["text"]}, json.dumps(spans, ensure_ascii=False), kind="spans")


def _labels(content: Mapping[str, Any]) -> str:
    return json.dumps(sorted(set(content["label"])), ensure_ascii=False)
