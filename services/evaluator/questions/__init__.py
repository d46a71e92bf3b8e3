"""What rows ask of models, by the interface that answers and the schema of the rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

from kit.rpc.errors import Invalid
from services.evaluator.metrics import METRICS, Kind, kind_of
from services.evaluator.questions.choosing import choose
from services.evaluator.questions.classification import from_classification, from_entities, from_labeled_sights
from services.evaluator.questions.preferences import from_feedback, from_pairs, from_preference
from services.evaluator.questions.question import Ask, Question, each
from services.evaluator.questions.retrieval import from_retrieval
from services.evaluator.questions.sights import from_sights
from services.evaluator.questions.texts import from_conversation, from_text
from sluice.evaluator import v1 as evaluator

__all__ = ["CHAT", "QUESTIONS", "Question", "check_suite", "fits", "read_questions"]

#: The interface of a version that names none.
CHAT = "chat"


class Asking(NamedTuple):
    """How rows are asked, and of which kinds the questions are."""

    ask: Ask
    kinds: tuple[Kind, ...]


QUESTIONS: dict[tuple[str, str], Asking] = {
    (CHAT, "sft"): Asking(each(from_conversation), ("text",)),
    (CHAT, "vqa"): Asking(each(from_sights), ("text",)),
    (CHAT, "caption"): Asking(each(from_sights), ("text",)),
    (CHAT, "asr"): Asking(each(from_sights), ("text",)),
    (CHAT, "grounding"): Asking(each(from_sights), ("text",)),
    (CHAT, "pretrain"): Asking(each(from_text), ("text",)),
    (CHAT, "preference"): Asking(from_pairs, ("preference", "text")),
    (CHAT, "feedback"): Asking(from_feedback, ("text", "preference")),
    ("classify", "preference"): Asking(each(from_preference), ("preference",)),
    ("classify", "classification"): Asking(each(from_classification), ("labels",)),
    ("classify", "image-text-classification"): Asking(each(from_labeled_sights), ("labels",)),
    ("entities", "entities"): Asking(each(from_entities), ("spans",)),
    ("embeddings", "retrieval"): Asking(from_retrieval, ("ranking",)),
    ("rerank", "retrieval"): Asking(from_retrieval, ("ranking",)),
}


def fits(interface: str, row_schema: str, metric: str) -> bool:
    """Whether a metric is known, and scores answers to such rows by a model that serves ``interface``."""
    asking = QUESTIONS.get((interface, row_schema))
    return asking is not None and metric in METRICS and kind_of(metric) in asking.kinds


def check_suite(interface: str, row_schema: str, metrics: Iterable[str], dataset_version: str) -> None:
    """Raises Invalid for rows that cannot be asked of such a model, and for metrics of what they do not ask."""
    asking = QUESTIONS.get((interface, row_schema))
    if asking is None:
        known = ", ".join(sorted(schema for at, schema in QUESTIONS if at == interface)) or "no schema"
        raise Invalid(
            f"rows of `{dataset_version}` follow the schema `{row_schema}`, which no suite asks of a model that "
            f"serves `{interface}`; choose rows of {known}"
        )
    for name in metrics:
        if not fits(interface, row_schema, name):
            fitting = ", ".join(sorted(each for each in METRICS if kind_of(each) in asking.kinds))
            raise Invalid(
                f"metric `{name}` scores no answers to rows of `{row_schema}` by a model that serves `{interface}`; "
                f"choose of {fitting}",
                violations=[("evaluation.suite.metrics", f"has `{name}`, which does not fit the rows")],
            )


async def read_questions(
    pieces: AsyncIterator[bytes], interface: str, row_schema: str, suite: evaluator.Suite
) -> list[Question]:
    """The questions of a split that the suite's metrics score, in order; ``pieces`` are whole JSON lines."""
    kinds = {kind_of(name) for name in suite.metrics}
    ask = QUESTIONS[interface, row_schema].ask
    return await choose(pieces, row_schema, ask, kinds, suite.max_rows, suite.max_tokens)
