"""Questions that are answered with an order of documents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from services.evaluator.questions.question import Question, Row

#: How many documents of other rows stand beside a row's own.
OTHERS = 30
#: After so many rows there are no more, however alike they were: else few documents would take time in squares.
LOOK = 300


def from_retrieval(rows: Iterable[Row], max_tokens: int) -> Iterator[Question]:
    """A query, and its documents among others: those that fit, its negatives, and what fits the queries after it.

    After the last row comes the first. Rows of the same query lend it nothing, as what fits one of them may fit the
    other. Documents stand in the order of their SHA-256, so that a model for which all are alike wins nothing.
    A row of which every document fits asks nothing.
    """
    several = list(rows)
    for place, (number, content) in enumerate(several):
        fitting = set(content["positive"])
        beside = {*content["negatives"], *islice(_others(several, place), OTHERS)} - fitting
        if fitting and beside:
            documents = sorted(fitting | beside, key=_order)
            reference = json.dumps([i for i, each in enumerate(documents) if each in fitting])
            yield Question(number, {"query": content["query"], "documents": documents}, reference, kind="ranking")


def _others(rows: Sequence[Row], place: int) -> Iterator[str]:
    """What fits the queries of the rows after ``place``, once around, each document once."""
    _, own = rows[place]
    seen = {*own["positive"], *own["negatives"]}
    for step in range(1, min(len(rows), LOOK + 1)):
        _, content = rows[(place + step) % len(rows)]
        if content["query"] != own["query"]:
            new = [each for each in dict.fromkeys(content["positive"]) if each not in seen]
            seen.update(new)
            yield from new


def _order(document: str) -> bytes:
    return hashlib.sha256(document.encode("utf-8", "surrogatepass")).digest()
