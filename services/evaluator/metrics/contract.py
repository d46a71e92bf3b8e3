"""What every metric promises; which there are is not known here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from kit.rpc.errors import StateConflict
from sluice.errors import v1 as errors

#: Figures of one row. Those of several rows are added up, column by column.
Statistics = tuple[float, ...]
#: What an answer is: words, which of two is preferred, labels, an order of documents, or named spans of a text.
Kind = Literal["text", "preference", "labels", "ranking", "spans"]


class MetricFailed(StateConflict):
    """A metric gave no number. That is never a score: the evaluation fails."""

    default_reason = errors.ERROR_REASON_INTERNAL


class Metric(Protocol):
    """A score in 0..1, higher is better, as a function of statistics that add up over rows.

    So a score over any rows, a resample among them, needs each row measured only once. Deterministic; holds no
    state between calls; whatever a library raises passes through, and nothing is made a zero.
    """

    @property
    def reads(self) -> Kind:
        """What the answers are that it scores."""

    def measure(self, answer: str, reference: str) -> Statistics:
        """The statistics of one row, always of the same length. Where it reads words, any text will do."""

    def score_row(self, statistics: Statistics) -> float:
        """The score of one row."""

    def aggregate(self, totals: Sequence[float]) -> float:
        """The score over the rows whose statistics add up to ``totals``; at least one row."""
