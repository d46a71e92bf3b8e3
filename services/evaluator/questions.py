"""Rows as questions with a reference answer, and which of them are asked; who answers is not known here."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kit.rpc.errors import Invalid
from services.evaluator.scripts import is_mostly_cjk


@dataclass(frozen=True)
class Question:
    """A row of the split, counted from 1: what is asked (`messages` or `prompt`), and the answer that is expected."""

    row: int
    asked: Mapping[str, Any]
    reference: str
    #: An answer counts up to so many of its pieces, words or characters; 0 means whole.
    pieces: int = 0

    def cut(self, answer: str) -> str:
        """The part of an answer that counts."""
        return _head(answer, self.pieces, is_mostly_cjk(self.reference)) if self.pieces else answer


Ask = Callable[[int, Mapping[str, Any], int], Question | None]


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
    starts = _starts(text, by_character)
    if len(starts) < 2:
        return None
    middle = starts[(len(starts) + 1) // 2]
    pieces = min(len(starts) // 2, max_tokens)
    reference = _head(text[middle:], pieces, by_character)
    return Question(row, {"prompt": text[:middle].rstrip()}, reference, pieces)


QUESTIONS: dict[str, Ask] = {"sft": from_conversation, "pretrain": from_text}


def check_schema(row_schema: str, dataset_version: str) -> None:
    """Raises Invalid for rows that cannot be asked."""
    if row_schema not in QUESTIONS:
        known = ", ".join(sorted(QUESTIONS))
        raise Invalid(
            f"rows of `{dataset_version}` follow the schema `{row_schema}`, which no suite asks; choose rows of {known}"
        )


async def read_questions(
    pieces: AsyncIterator[bytes], row_schema: str, max_rows: int, max_tokens: int
) -> list[Question]:
    """The questions of a split, in order; of more than ``max_rows`` those whose rows have the lowest SHA-256.

    ``pieces`` are whole JSON lines. So the same rows are asked whatever else the split holds before or after them.
    """
    ask, row, kept = QUESTIONS[row_schema], 0, list[tuple[int, int, bytes]]()
    async for piece in pieces:
        for line in piece.splitlines():
            row += 1
            entry = (-int.from_bytes(hashlib.sha256(line).digest()), -row, line)
            if not max_rows or len(kept) < max_rows:
                heapq.heappush(kept, entry)
            else:
                heapq.heappushpop(kept, entry)
    return list(_asked(sorted((-number, line) for _, number, line in kept), ask, max_tokens))


def _asked(rows: Iterable[tuple[int, bytes]], ask: Ask, max_tokens: int) -> Iterable[Question]:
    for number, line in rows:
        question = ask(number, json.loads(line), max_tokens)
        if question is not None:
            yield question


def _starts(text: str, by_character: bool) -> list[int]:
    """Where each piece of the text starts."""
    inside, starts = False, []
    for place, char in enumerate(text):
        if not char.isspace() and (by_character or not inside):
            starts.append(place)
        inside = not char.isspace()
    return starts


def _head(text: str, pieces: int, by_character: bool) -> str:
    """The first ``pieces`` words or characters of a text."""
    text = text.strip()
    starts = _starts(text, by_character)
    return text[: starts[pieces]].rstrip() if len(starts) > pieces else text
