"""A question that a row makes, with its reference answer; who answers and what is right are not known here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from services.evaluator.metrics import Kind
from services.evaluator.scripts import head, is_mostly_cjk

#: A row's number in its split, from 1, and what it holds.
Row = tuple[int, Mapping[str, Any]]
#: The questions of rows; the number is how many tokens an answer may have.
Ask = Callable[[Iterable[Row], int], Iterator["Question"]]


@dataclass(frozen=True)
class Question:
    """A row of the split, counted from 1: what is asked, in the words of its kind, and the answer that is expected.

    | kind | `asked` | `reference` |
    |---|---|---|
    | text | `messages` or `prompt` | what should be said |
    | preference | `prompt`, `chosen` and `rejected`, each a list of messages | `chosen` |
    | labels | `text`, or `messages` with images | a JSON list of labels, sorted |
    | ranking | `query`, `documents` | a JSON list of the places, from 0, of the documents that fit |
    | spans | `text` | a JSON list of spans, sorted, such as `0:4:PER` |
    """

    row: int
    asked: Mapping[str, Any]
    reference: str
    #: An answer counts up to so many of its pieces, words or characters; 0 means whole.
    pieces: int = 0
    kind: Kind = "text"
    #: Whether the row asks another question before this one.
    second: bool = False

    @property
    def key(self) -> int:
        """By which its answer is found: the row, below zero of a second question."""
        return -self.row if self.second else self.row

    def cut(self, answer: str) -> str:
        """The part of an answer that counts."""
        return head(answer, self.pieces, is_mostly_cjk(self.reference)) if self.pieces else answer


def each(ask: Callable[[int, Mapping[str, Any], int], Question | None]) -> Ask:
    """Questions of rows that ask one by one, or nothing."""

    def asked(rows: Iterable[Row], max_tokens: int) -> Iterator[Question]:
        for number, content in rows:
            question = ask(number, content, max_tokens)
            if question is not None:
                yield question

    return asked
