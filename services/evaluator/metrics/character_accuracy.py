"""How many characters of a reference were read right; it knows no words and no page."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from services.evaluator.metrics.contract import Kind, Statistics


class CharacterAccuracy:
    """1 − the character error rate (Morris et al. 2004), 0 where that is above 1.

    Levenshtein's distance over the characters of the references, after NFKC and with every run of white space as one.
    """

    reads: Kind = "text"

    def measure(self, answer: str, reference: str) -> Statistics:
        """(insertions, deletions and substitutions; characters of the reference, at least 1)."""
        ours, theirs = normal(answer), normal(reference)
        return (float(distance(ours, theirs)), float(max(len(theirs), 1)))

    def score_row(self, statistics: Statistics) -> float:
        """That of the row."""
        return self.aggregate(statistics)

    def aggregate(self, totals: Sequence[float]) -> float:
        """That of all characters together, so that long texts weigh more."""
        return max(0.0, 1 - totals[0] / totals[1])


def normal(text: str) -> str:
    """A text after NFKC, with every run of white space as one space."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def distance(one: str, other: str) -> int:
    """How many characters are inserted, deleted or put in the place of others on the way from one to the other.

    Levenshtein 1966, a row of the table at a time (Wagner and Fischer 1974), by columns of the shorter text.
    """
    import numpy as np

    short, long = sorted((one, other), key=len)
    letters = np.frombuffer(short.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    steps = np.arange(len(short) + 1)
    before = steps.copy()
    for place, letter in enumerate(long, start=1):
        best = np.minimum(before[1:] + 1, before[:-1] + (letters != ord(letter)))
        # What is inserted one after the other is the least of all that stands before, plus the way from there.
        before = np.minimum.accumulate(np.concatenate(([place], best)) - steps) + steps
    return int(before[-1])
