"""How many words of a reference were heard right; it knows no sound."""

from __future__ import annotations

from services.evaluator.metrics.character_accuracy import CharacterAccuracy, distance, normal
from services.evaluator.metrics.contract import Statistics


class WordAccuracy(CharacterAccuracy):
    """1 − the word error rate (Morris et al. 2004), 0 where that is above 1.

    Levenshtein's distance over the words of the references, after NFKC and without regard to case; what stands between
    spaces is a word.
    """

    def measure(self, answer: str, reference: str) -> Statistics:
        """(insertions, deletions and substitutions; words of the reference, at least 1)."""
        ours, theirs = (normal(text).casefold().split() for text in (answer, reference))
        letters = {word: chr(number) for number, word in enumerate({*ours, *theirs})}  # a word is as good as a letter
        one, other = ("".join(map(letters.__getitem__, words)) for words in (ours, theirs))
        return (float(distance(one, other)), float(max(len(theirs), 1)))
