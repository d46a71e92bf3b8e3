"""``near_recall``, ``near_precision``, ``duplicate_rows_s``: what the search for repeated rows finds, and how fast."""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import pyarrow as pa

from benchmarks.figure import Figure
from benchmarks.intervals import order_bounds, quantile
from sluice.rows.profile import Duplicates, find_duplicates
from sluice.rows.profile.duplicates import SHINGLE, THRESHOLD
from sluice.rows.profile.sketches import wilson

ROWS, QUICK_ROWS = 100_000, 10_000
PAIRS, QUICK_PAIRS = 4_000, 400
ROUNDS, QUICK_ROUNDS = 5, 2
LATIN = "abcdefghijklmnopqrstuvwxyz"
HAN = "".join(map(chr, range(0x4E00, 0x4E00 + 2_000)))
SIZE = 300
#: One-sided, as all bounds of figures.
Z = 1.644854


def measure(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """Plants edited copies among unrelated rows, half of them Chinese, and searches them."""
    rows, pairs, rounds = (QUICK_ROWS, QUICK_PAIRS, QUICK_ROUNDS) if options.quick else (ROWS, PAIRS, ROUNDS)
    table, truth = planted(rows, pairs, random.Random(0))
    rates, found = [], None
    for _ in range(rounds):
        began = time.perf_counter()
        found = find_duplicates(table.to_batches(max_chunksize=16_384), first=rows)
        rates.append(rows / (time.perf_counter() - began))
    assert found
    mb_per_row = table.nbytes / rows / 1e6
    rate = quantile(rates, 0.5)
    low, high = order_bounds(rates, 0.5)
    return [
        *accuracy(truth, found),
        _figure("duplicate_rows_s", "median", rate, low, high, len(rates), {"mb_s": rate * mb_per_row, "rows": rows}),
    ]


def planted(rows: int, pairs: int, rng: random.Random) -> tuple[pa.Table, list[float]]:
    """Rows of which the last ``pairs`` are edited copies of the first ones, and how similar each is to its original."""
    texts = ["".join(rng.choices(HAN if place % 2 else LATIN, k=SIZE)) for place in range(rows - pairs)]
    for place in range(pairs):
        letters, text = HAN if place % 2 else LATIN, texts[place]
        for at in rng.sample(range(SIZE), rng.randint(1, 20)):
            text = text[:at] + rng.choice(letters) + text[at + 1 :]
        texts.append(text)
    truth = [jaccard(texts[place], texts[rows - pairs + place]) for place in range(pairs)]
    return pa.table({"text": texts, "split": ["train"] * rows}), truth


def jaccard(one: str, other: str) -> float:
    """The true similarity, of the sets of n-grams."""
    first, second = ({text[at : at + SHINGLE] for at in range(len(text) - SHINGLE + 1)} for text in (one, other))
    return len(first & second) / len(first | second)


def accuracy(truth: list[float], found: Duplicates) -> list[Figure]:
    """Recall and precision of what was told, against the true similarities."""
    copies = {each.row for each in found.near_first}
    told = [found.rows - len(truth) + place + 1 in copies for place in range(len(truth))]
    similar = [each >= THRESHOLD for each in truth]
    hits = sum(1 for one, other in zip(told, similar, strict=True) if one and other)
    clear = [one for one, each in zip(told, truth, strict=True) if each >= THRESHOLD + 0.07]
    wrong = [one for one, each in zip(told, truth, strict=True) if each <= THRESHOLD - 0.07]
    details = {"recall_from_0.87": sum(clear) / len(clear), "told_below_0.73": sum(wrong) / len(wrong)}
    return [
        _figure("near_recall", "share", hits / sum(similar), *wilson(hits, sum(similar), Z), sum(similar), details),
        _figure("near_precision", "share", hits / sum(told), *wilson(hits, sum(told), Z), sum(told), {}),
    ]


def _figure(
    name: str, statistic: str, value: float, low: float, high: float, n: int, details: dict[str, float]
) -> Figure:
    return Figure(
        name=name,
        statistic=statistic,
        value=value,
        low=low,
        high=high,
        n=n,
        target=None,
        start="rows as Arrow batches in memory",
        end="repeated and leaked rows told",
        beside="nothing",
        details=details,
        note=f"Rows of {SIZE} random letters, every other one Chinese; copies with 1 to 20 letters replaced; similar: "
        f"{SHINGLE}-gram Jaccard of {THRESHOLD} or more.",
    )
