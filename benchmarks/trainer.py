"""The figures of training: ``python benchmarks/trainer.py --json``; our sft recipe against TRL's trainer and ms-swift.

All sides train the same adapter on the same base and rows, once over all of them, in processes of their own that take
turns. Tokens are those of the rows, without padding, on every side. ms-swift has an environment of its own:
``SLUICE_SWIFT`` names its folder, else one is made below ``~/.cache/sluice`` (1.5 GB).
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # started by its path and not as a module
    sys.path.insert(0, str(ROOT))

from benchmarks import recipes  # noqa: E402
from benchmarks.figure import Figure  # noqa: E402
from benchmarks.intervals import order_bounds, quantile  # noqa: E402
from benchmarks.runner import Measures, run  # noqa: E402
from benchmarks.trainer_sides import BATCH, RANK, RATE, Data, Run, ours, swift, swift_environment, trl  # noqa: E402

ROWS = recipes.ROOT / "examples" / "bank-intents.jsonl"
STEPS, QUICK_STEPS, QUICK_PAIRS = 30, 5, 2
#: What our recipe does otherwise than TRL's trainer where neither is told; with it both do the same.
EQUAL = {
    "max_length": None,
    "learning_rate": RATE,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 1,
    "bf16": False,
    "gradient_checkpointing": False,
    "optim": "adamw_torch_fused",
    "logging_steps": 1,
    "save_steps": 50,
}
#: Seconds that ms-swift sleeps between its tries to reach its hub where there is no network.
SWIFT_SLEEPS_S = 7.0


def measure_trl(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """Ours and TRL's with equal settings, then each with its own."""
    data, tokens = _data(folder, options)
    equal: list[tuple[Run, Run]] = []
    best: list[tuple[Run, Run]] = []
    for number in _numbers(options):
        at = folder / str(number)
        padded = partial(ours, at / "padded", data, {"padding_free": False})
        equal.append(_pair(number, padded, partial(trl, at / "equal", data, EQUAL)))
        best.append(_pair(number, partial(ours, at / "ours", data, {}, tokens), partial(trl, at / "usual", data, {})))
        shutil.rmtree(at)
    for pair in (*equal, *best):
        _check_same(pair, data)
    common = "on both sides nothing of ours; pairs in turns"
    return [
        _ratio("tokens_per_s_vs_trl", equal, lambda run: run.tokens_per_s, 0.98, common, note=EQUAL_NOTE),
        _ratio("peak_rss_vs_trl", equal, lambda run: run.peak_rss_mb, 1.05, common, at_least=False, note=RSS_NOTE),
        _ratio("tokens_per_s_vs_trl_best", best, lambda run: run.whole_tokens_per_s, 1.3, common, note=BEST_NOTE),
    ]


EQUAL_NOTE = (
    "The median step after the first. Padded batches, float32, the same optimizer, rates and order of rows on both "
    "sides; ours with its own loss."
)
RSS_NOTE = "The most either process ever held, imports and saving included."
BEST_NOTE = (
    "Ours: no padding, tokens from the cache. TRL's defaults (bfloat16, activations computed twice) but for the rows "
    "of a batch, which are ours. From reading base and rows to the end of the last step."
)


def measure_swift(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """Ours as it comes, against ms-swift as it comes but with float32 and no second computing of activations."""
    data, tokens = _data(folder, options)
    python = swift_environment()
    swift(folder / "warm", data, python)  # fills the page cache, and is not counted
    pairs = []
    for number in _numbers(options):
        at = folder / str(number)
        mine, theirs = partial(ours, at / "ours", data, {}, tokens), partial(swift, at / "swift", data, python)
        pairs.append(_pair(number, mine, theirs))
        shutil.rmtree(at)
    rested = [(mine, replace(theirs, spawned=theirs.spawned + SWIFT_SLEEPS_S)) for mine, theirs in pairs]
    common = "on both sides nothing of ours; pairs in turns; both environments have their bytecode"
    counted = quantile([mine.first_step_s / theirs.first_step_s for mine, theirs in pairs], 0.5)
    started = _ratio("startup_vs_swift", rested, lambda run: run.first_step_s, 0.5, common, at_least=False)
    note = (
        f"From spawn to the end of the first step. The {SWIFT_SLEEPS_S:.0f} s are taken off that ms-swift sleeps where "
        f"it finds no network; with them the ratio is {counted:.3f}. Submitting to a suite adds `submit_overhead_s`."
    )
    return [
        _ratio("tokens_per_s_vs_swift", pairs, lambda run: run.tokens_per_s, 1.0, common, note=SWIFT_NOTE),
        replace(started, note=note),
    ]


SWIFT_NOTE = "The median step after the first; ours with its defaults, ms-swift padded, float32."


def _data(folder: Path, options: argparse.Namespace) -> tuple[Data, Path]:
    """What is trained on, and the folder with its tokens, left by a run that warms up and is not counted."""
    steps = QUICK_STEPS if options.quick else STEPS
    base = recipes.make_base(folder / "made")
    with ROWS.open(encoding="utf-8") as file:
        rows = [line for line, _ in zip(file, range(steps * BATCH), strict=False)]
    first = ours(folder / "first", Data(base, rows), {})
    return Data(base, rows, first.tokens), folder / "first" / "tokens"


def _numbers(options: argparse.Namespace) -> range:
    return range(QUICK_PAIRS if options.quick else options.pairs)


def _pair(number: int, mine: Callable[[], Run], theirs: Callable[[], Run]) -> tuple[Run, Run]:
    """One run of each, theirs first in every other pair: what drifts strikes both alike."""
    if number % 2:
        other = theirs()
        return mine(), other
    return mine(), theirs()


def _check_same(pair: tuple[Run, Run], data: Data) -> None:
    """Raises RuntimeError where a side has trained on other tokens."""
    if any(abs(run.tokens / data.tokens - 1) > 0.001 for run in pair):
        raise RuntimeError(
            f"the rows have {data.tokens} tokens; ours has seen {pair[0].tokens}, theirs {pair[1].tokens}"
        )


def _ratio(
    name: str,
    pairs: Sequence[tuple[Run, Run]],
    of: Callable[[Run], float],
    target: float,
    beside: str,
    *,
    at_least: bool = True,
    note: str = "",
) -> Figure:
    """Ours over theirs."""
    ratios = [of(mine) / of(theirs) for mine, theirs in pairs]
    low, high = order_bounds(ratios, 0.5)
    details = {
        "ours": statistics.median(of(mine) for mine, _ in pairs),
        "theirs": statistics.median(of(theirs) for _, theirs in pairs),
        "least": min(ratios),
        "most": max(ratios),
    }
    steps = len(pairs[0][0].steps)
    return Figure(
        name=name,
        statistic="median of pairs",
        value=quantile(ratios, 0.5),
        low=low,
        high=high,
        n=len(pairs),
        target=target,
        at_least=at_least,
        start=f"LoRA of rank {RANK} on the demo's base, {steps} steps of {BATCH} rows",
        end=f"step {steps}",
        beside=f"{beside}; {recipes.environ()['OMP_NUM_THREADS']} threads",
        details=details,
        note=note,
    )


NAMES_TRL = ("tokens_per_s_vs_trl", "peak_rss_vs_trl", "tokens_per_s_vs_trl_best")
NAMES_SWIFT = ("tokens_per_s_vs_swift", "startup_vs_swift")
MEASURES: Measures = {NAMES_TRL: measure_trl, NAMES_SWIFT: measure_swift}

if __name__ == "__main__":
    sys.exit(run(MEASURES))
