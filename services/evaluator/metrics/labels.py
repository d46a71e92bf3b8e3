"""Scores of labels, or of named spans; answers and references are JSON lists of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from services.evaluator.metrics.contract import Kind, Statistics


def labels_of(text: str) -> frozenset[str]:
    """The labels of an answer or a reference. Raises ValueError for what is no JSON list."""
    found = json.loads(text)
    if not isinstance(found, list):
        raise ValueError("not a list of labels")
    return frozenset(found)


def subset_accuracy(answer: str, reference: str) -> float:
    """1 where the labels are exactly those of the reference, however many; else 0."""
    return float(labels_of(answer) == labels_of(reference))


@dataclass(frozen=True)
class MicroF1:
    """F1 over all decisions, a label for a row: 2·tp ÷ (2·tp + fp + fn) (van Rijsbergen 1979, chapter 7).

    1 where there is no label to be found and none was. With one label a row it is the accuracy; of spans, place and
    name exactly, it is the figure of CoNLL-2003 (Tjong Kim Sang and De Meulder 2003).
    """

    reads: Kind = "labels"

    def measure(self, answer: str, reference: str) -> Statistics:
        """(labels found, labels too many, labels missed)."""
        ours, theirs = labels_of(answer), labels_of(reference)
        return (float(len(ours & theirs)), float(len(ours - theirs)), float(len(theirs - ours)))

    def score_row(self, statistics: Statistics) -> float:
        """F1 of the row."""
        return self.aggregate(statistics)

    def aggregate(self, totals: Sequence[float]) -> float:
        """F1 over all."""
        hits, extra, missed = totals
        return 2 * hits / (2 * hits + extra + missed) if hits + extra + missed else 1.0


@dataclass(frozen=True)
class MacroF1:
    """The mean of the F1 of each label, so that a rare one counts as much as a common one (scikit-learn's `macro`).

    Over the labels that stand in the references or answers of the rows that count; 1 where there are none.
    ``labels`` are all there may be, in whatever order.
    """

    labels: tuple[str, ...]
    reads: Kind = "labels"

    def measure(self, answer: str, reference: str) -> Statistics:
        """Three figures a label: (found, too many, missed)."""
        ours, theirs = labels_of(answer), labels_of(reference)
        places = {label: 3 * place for place, label in enumerate(self.labels)}
        figures = [0.0] * (3 * len(self.labels))
        for shift, several in enumerate((ours & theirs, ours - theirs, theirs - ours)):
            for label in several:
                figures[places[label] + shift] = 1.0
        return tuple(figures)

    def score_row(self, statistics: Statistics) -> float:
        """The mean over the labels of the row."""
        return self.aggregate(statistics)

    def aggregate(self, totals: Sequence[float]) -> float:
        """The mean over the labels there are."""
        one = MicroF1()
        each = [one.aggregate(totals[i : i + 3]) for i in range(0, len(totals), 3) if any(totals[i : i + 3])]
        return sum(each) / len(each) if each else 1.0
