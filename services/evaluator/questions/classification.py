"""Questions that are answered with labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from services.evaluator.questions.question import Question


def from_classification(row: int, content: Mapping[str, Any], max_tokens: int) -> Question:
    """The text asks; all of its labels are the reference."""
    labels = json.dumps(sorted(set(content["label"])), ensure_ascii=False)
    return Question(row, {"text": content["text"]}, labels, kind="labels")
