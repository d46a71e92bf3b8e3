"""Questions about two answers to one prompt: which of them a model prefers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from services.evaluator.questions.question import Question, Row


def from_preference(row: int, content: Mapping[str, Any], max_tokens: int) -> Question | None:
    """Both answers are put to the model. None for two that are the same, or of several turns, which no recipe takes."""
    return _compared(row, content["prompt"], content["chosen"], content["rejected"])


def from_pairs(rows: Iterable[Row], max_tokens: int) -> Iterator[Question]:
    """Which of two answers is preferred, and then what is said itself: a likelihood alone tells nothing of that."""
    for row, content in rows:
        compared = from_preference(row, content, max_tokens)
        said = _asked(row, content["prompt"], content["chosen"])
        if compared is not None:
            yield compared
        if said is not None:
            yield replace(said, second=True)


def from_feedback(rows: Iterable[Row], max_tokens: int) -> Iterator[Question]:
    """A bad answer is compared with a good one to the same prompt; of a good one, the prompt is asked.

    Where a bad answer has no good one beside it, its row asks nothing: likelihoods of answers to different prompts
    tell of the prompts. The good ones to a prompt take turns.
    """
    good: dict[str, list[Row]] = defaultdict(list)
    bad: dict[str, list[Row]] = defaultdict(list)
    for number, content in rows:
        (good if content["label"] else bad)[prompt_of(content)].append((number, content))
    questions = [
        _asked(number, content["prompt"], content["completion"])
        for several in good.values()
        for number, content in several
    ]
    for prompt, several in bad.items():
        for turn, (number, content) in enumerate(several if prompt in good else []):
            better = good[prompt][turn % len(good[prompt])][1]["completion"]
            questions.append(_compared(number, content["prompt"], better, content["completion"]))
    yield from sorted((each for each in questions if each is not None), key=lambda each: each.row)


def prompt_of(content: Mapping[str, Any]) -> str:
    """The prompt as text, equal where prompts are."""
    return json.dumps([(each["role"], each["content"]) for each in content["prompt"]], ensure_ascii=False)


def _asked(row: int, prompt: Any, answer: Any) -> Question | None:
    return Question(row, {"messages": prompt}, answer[0]["content"]) if len(answer) == 1 else None


def _compared(row: int, prompt: Any, chosen: Any, rejected: Any) -> Question | None:
    if len(chosen) != 1 or len(rejected) != 1 or chosen == rejected:
        return None
    asked = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return Question(row, asked, "chosen", kind="preference")
