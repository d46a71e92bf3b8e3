"""The metrics by name. Heavy imports are inside their files, so that an idle process stays small."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kit.rpc.errors import Invalid
from services.evaluator.metrics.bleu_4 import Bleu4
from services.evaluator.metrics.box_iou import box_iou
from services.evaluator.metrics.character_accuracy import CharacterAccuracy
from services.evaluator.metrics.contract import Kind, Metric, MetricFailed, Statistics
from services.evaluator.metrics.exact_match import ExactMatch
from services.evaluator.metrics.labels import MacroF1, MicroF1, labels_of, subset_accuracy
from services.evaluator.metrics.mean import Mean
from services.evaluator.metrics.preference_accuracy import preference_accuracy
from services.evaluator.metrics.ranking import ndcg_at, recall_at, reciprocal_rank
from services.evaluator.metrics.rouge_l import RougeL
from services.evaluator.metrics.word_accuracy import WordAccuracy

__all__ = ["METRICS", "Kind", "Metric", "MetricFailed", "Statistics", "check_metrics", "kind_of", "make"]

#: A metric is made for the labels that stand in answers and references; those that read none take no notice.
METRICS: dict[str, Callable[[tuple[str, ...]], Metric]] = {
    "exact_match": lambda _: ExactMatch(),
    "rouge_l": lambda _: RougeL(),
    "bleu_4": lambda _: Bleu4(),
    "character_accuracy": lambda _: CharacterAccuracy(),
    "word_accuracy": lambda _: WordAccuracy(),
    "box_iou": lambda _: Mean("text", box_iou),
    "preference_accuracy": lambda _: Mean("preference", preference_accuracy),
    "accuracy": lambda _: Mean("labels", subset_accuracy),
    "macro_f1": MacroF1,
    "micro_f1": lambda _: MicroF1(),
    "entity_f1": lambda _: MicroF1("spans"),
    "recall_at_1": lambda _: Mean("ranking", recall_at(1)),
    "recall_at_10": lambda _: Mean("ranking", recall_at(10)),
    "mrr": lambda _: Mean("ranking", reciprocal_rank),
    "ndcg_at_10": lambda _: Mean("ranking", ndcg_at(10)),
}


def kind_of(name: str) -> Kind:
    """What the answers are that a metric scores."""
    return METRICS[name](()).reads


def make(name: str, texts: Iterable[str]) -> Metric:
    """A metric for these answers and references. Raises ValueError for labels that cannot be read."""
    labels = set().union(*map(labels_of, texts)) if kind_of(name) == "labels" else set()
    return METRICS[name](tuple(sorted(labels)))


def check_metrics(names: Iterable[str]) -> None:
    """Raises Invalid for a metric that is not there."""
    for name in names:
        if name not in METRICS:
            known = ", ".join(sorted(METRICS))
            raise Invalid(
                f"metric `{name}` is not known; it is one of {known}",
                violations=[("evaluation.suite.metrics", "is not known")],
            )
