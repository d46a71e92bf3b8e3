"""BLEU-4 by sacrebleu, over the rows as one corpus; Chinese references are split into characters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from services.evaluator.metrics.contract import Kind, Statistics
from services.evaluator.scripts import is_mostly_cjk

ORDER = 4


class Bleu4:
    """BLEU (Papineni 2002) with exponential smoothing (Chen and Cherry 2014), divided by 100.

    With effective order: where all answers are shorter than n words there are no n-grams, and the shorter ones
    decide. Elsewhere this is sacrebleu's corpus BLEU.
    """

    reads: Kind = "text"

    def measure(self, answer: str, reference: str) -> Statistics:
        """(n-grams matched, 1 to 4; n-grams in all, 1 to 4; words of the answer; words of the reference)."""
        found = _scorer("zh" if is_mostly_cjk(reference) else "13a").sentence_score(answer, [reference])
        return tuple(float(each) for each in (*found.counts, *found.totals, found.sys_len, found.ref_len))

    def score_row(self, statistics: Statistics) -> float:
        """Sentence BLEU."""
        return self.aggregate(statistics)

    def aggregate(self, totals: Sequence[float]) -> float:
        """Corpus BLEU."""
        from sacrebleu.metrics.bleu import BLEU

        whole = [round(each) for each in totals]
        found = BLEU.compute_bleu(
            whole[:ORDER], whole[ORDER : 2 * ORDER], whole[-2], whole[-1], smooth_method="exp", effective_order=True
        )
        return float(found.score) / 100


@cache
def _scorer(tokenizer: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokenizer, effective_order=True)
