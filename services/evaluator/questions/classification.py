"""Questions that are answered with labels, of a text or of spans of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from services.evaluator.questions.question import Question
from sluice.spans import Span


def from_classification(row: int, content: Mapping[str, Any], max_tokens: int) -> Question:
    """The text asks; all of its labels are the reference."""
    labels = json.dumps(sorted(set(content["label"])), ensure_ascii=False)
    return Question(row, {"text": content["text"]}, labels, kind="labels")


def from_entities(row: int, content: Mapping[str, Any], max_tokens: int) -> Question:
    """The text asks; every span of it, by place and name, is the reference."""
    spans = sorted(Span(each["start"], each["end"], each["label"]).key for each in content["entities"])
    return Question(row, {"text": content["text"]}, json.dumps(spans, ensure_ascii=False), kind="spans")
