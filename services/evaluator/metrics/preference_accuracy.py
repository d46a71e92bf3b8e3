"""How often a model prefers the better of two answers; it knows no likelihoods and no rewards."""

from __future__ import annotations


def preference_accuracy(answer: str, reference: str) -> float:
    """1 for the answer that people prefer, 0 for the other, ½ where the model holds both for equal (`tie`).

    So the mean is the chance that the better answer scores higher, ties split (Mann and Whitney 1947): ½ for a model
    that does not tell answers apart.
    """
    return 0.5 if answer == "tie" else float(answer == reference)
