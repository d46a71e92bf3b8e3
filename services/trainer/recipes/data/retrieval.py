"""Rows of queries and texts that fit them: documents put in order, and how good an order is; knows no model."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import islice
from random import Random

from services.trainer.recipes.data.rows import Retrieval

NEGATIVES = 4
#: Held-out queries that are put to the test, and what fits others that stands beside what fits them.
MAX_EVAL_ROWS = 64
OTHERS = 9


def fitting(rows: Sequence[Retrieval]) -> dict[str, set[str]]:
    """What fits each query, in whichever row that is said."""
    found: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        found[row.query].update(row.positive)
    return found


def with_others(rows: Sequence[Retrieval], count: int, seed: int) -> list[tuple[str, str, bool]]:
    """(query, document, whether it fits): each text that fits, and after it `count` that do not, as far as there are:
    those given, then by chance what fits other queries only.
    """
    fits, random = fitting(rows), Random(seed)
    pool = list(dict.fromkeys(text for row in rows for text in row.positive))
    found = []
    for row in rows:
        given = [text for text in row.negatives if text not in fits[row.query]]
        taken = fits[row.query] | set(given)
        for text in row.positive:
            drawn = random.sample(pool, min(len(pool), max(0, count - len(given)) + len(taken)))
            others = islice((each for each in drawn if each not in taken), max(0, count - len(given)))
            found += [(row.query, text, True), *((row.query, each, False) for each in (*given[:count], *others))]
    return found


def candidates(rows: Sequence[Retrieval]) -> list[tuple[str, list[str], set[str]]]:
    """For each of the first rows its query, documents in the order of their names, and those of them that fit: its own
    texts and what fits the rows after it. A row of which every document fits is left out.
    """
    fits, found = fitting(rows), []
    for place, row in enumerate(rows[:MAX_EVAL_ROWS]):
        after = (text for other in (*rows[place + 1 :], *rows[:place]) for text in other.positive)
        new = (text for text in dict.fromkeys(after) if text not in fits[row.query])
        beside = {*row.negatives, *islice(new, OTHERS)} - fits[row.query]
        if beside:
            found.append((row.query, sorted(beside | fits[row.query]), fits[row.query]))
    return found


def ranked(
    rows: Sequence[Retrieval], score: Callable[[str, list[str]], list[float]], when: str = ""
) -> dict[str, float]:
    """`eval_recall_at_1`, the share of what fits that stands in front, of one at most, and `eval_mrr`, one over the
    first place of what fits (Voorhees 1999), both means over queries; nothing of no rows. Ties go against what fits.
    """
    first = []
    for query, documents, fits in candidates(rows):
        scores = dict(zip(documents, score(query, documents), strict=True))
        best = max(scores[text] for text in fits)
        first.append(1 + sum(scores[text] >= best for text in documents if text not in fits))
    if not first:
        return {}
    return {
        f"eval_recall_at_1{when}": sum(place == 1 for place in first) / len(first),
        f"eval_mrr{when}": sum(1 / place for place in first) / len(first),
    }
