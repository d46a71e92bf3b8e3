"""Scores of an order of documents, of which some fit; answers and references are JSON lists of places from 0."""

from __future__ import annotations

import json
import math
from collections.abc import Callable


def recall_at(k: int) -> Callable[[str, str], float]:
    """The share of the documents that fit that stand among the first ``k`` (Manning et al. 2008, chapter 8)."""

    def recall(answer: str, reference: str) -> float:
        ranks = _ranks(answer, reference)
        return sum(rank <= k for rank in ranks) / len(ranks)

    return recall


def reciprocal_rank(answer: str, reference: str) -> float:
    """1 ÷ the rank, from 1, of the first document that fits (Voorhees 1999)."""
    return 1 / min(_ranks(answer, reference))


def ndcg_at(k: int) -> Callable[[str, str], float]:
    """Discounted cumulative gain of the first ``k``, divided by the best there is (Järvelin and Kekäläinen 2002).

    What fits gains 1, all else nothing; rank r is divided by log2(1 + r).
    """

    def ndcg(answer: str, reference: str) -> float:
        ranks = _ranks(answer, reference)
        best = math.fsum(1 / math.log2(1 + rank) for rank in range(1, min(len(ranks), k) + 1))
        return math.fsum(1 / math.log2(1 + rank) for rank in ranks if rank <= k) / best

    return ndcg


def _ranks(answer: str, reference: str) -> list[int]:
    """The rank, from 1, of each document that fits. Raises ValueError for one that the answer does not have."""
    order = json.loads(answer)
    return [order.index(place) + 1 for place in json.loads(reference)]
