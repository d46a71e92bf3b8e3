"""ROUGE-L by rouge_score, whose own tokenizer drops everything but Latin letters and is replaced here."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from services.evaluator.metrics.contract import Kind, Statistics
from services.evaluator.scripts import CJK

_TOKEN = re.compile(rf"[{CJK}]|(?:(?![{CJK}])\w)+")


class Tokens:
    """Words in lower case after NFKC; a Chinese or Japanese character is a word of its own. Punctuation is dropped."""

    def tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        return _TOKEN.findall(unicodedata.normalize("NFKC", text).lower())


class RougeL:
    """The F-measure of the longest common subsequence of words (Lin 2004), the mean over rows."""

    reads: Kind = "text"

    @cached_property
    def _scorer(self) -> Any:
        from rouge_score.rouge_scorer import RougeScorer

        return RougeScorer(["rougeL"], tokenizer=Tokens())

    def measure(self, answer: str, reference: str) -> Statistics:
        """(F-measure, 1)."""
        return (float(self._scorer.score(reference, answer)["rougeL"].fmeasure), 1.0)

    def score_row(self, statistics: Statistics) -> float:
        """The F-measure."""
        return self.aggregate(statistics)

    def aggregate(self, totals: Sequence[float]) -> float:
        """The mean."""
        return float(totals[0] / totals[1])
