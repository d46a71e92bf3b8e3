"""``train_ratio`` and ``submit_overhead_s``: what a job loses by running in the suite instead of bare."""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import recipes
from benchmarks.figure import Figure
from benchmarks.intervals import order_bounds, quantile
from benchmarks.recipes import Ran
from sluice import Client
from sluice.client.specs import Hyperparameters
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types
from tests.suite import Suite

ROWS = recipes.ROOT / "examples" / "bank-intents.jsonl"
TARGET_RATIO, TARGET_S = 0.97, 2.0
QUICK_PAIRS = 2
#: All but the evaluator, which would start an engine for every version.
PROGRAMS = ("registry", "dataset", "trainer", "gateway", "gateway-worker", "engine-host")
LORA: Hyperparameters = {"lora_rank": 32, "lora_alpha": 64, "learning_rate": 5e-3, "batch_size": 32, "max_length": 96}
STEPS, QUICK_STEPS = 60, 20
PATIENCE_S = 600.0


def measure(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """Trains the same adapter in the suite and bare, in turns, each with the machine to itself."""
    steps = QUICK_STEPS if options.quick else STEPS
    base = recipes.make_base(folder / "base")
    suite = Suite(folder, PROGRAMS, {"OMP_NUM_THREADS": recipes.environ()["OMP_NUM_THREADS"]})
    try:
        suite.start()
        with Client(suite.state["address"], suite.key) as client:
            dataset = client.datasets.upload(name="rows", path=ROWS, task_type="sft").name
            client.models.import_folder("base", base, dataset=dataset)
            given = folder / "given"
            in_suite(suite, client, steps, copy_to=given)  # the first one warms the page cache, and is not counted
            pairs = []
            for number in range(QUICK_PAIRS if options.quick else options.pairs):
                pairs.append(pair(number, partial(in_suite, suite, client, steps), partial(bare, given, folder)))
    finally:
        suite.close()
    return figures(pairs, steps)


def in_suite(suite: Suite, client: Client, steps: int, copy_to: Path | None = None) -> Ran:
    """One job of the suite, from its submission; ``copy_to`` gets what the recipe was given."""
    asked: Hyperparameters = {**LORA, "max_steps": steps}
    began = time.time()
    job = client.train(dataset="rows@1", model="adapter", base="base@1", task_type="sft", **asked)
    folder = suite.home / "jobs" / job.name.rpartition("/")[2] / "1"
    deadline = time.monotonic() + PATIENCE_S
    for snapshot in client.jobs.watch(job.name):
        if copy_to and not copy_to.exists() and snapshot.progress.done > 0:
            shutil.copytree(folder / "in", copy_to / "in")
            shutil.copy(folder / "spec.json", copy_to)
        if time.monotonic() > deadline:
            break
    if snapshot.state != types.JOB_STATE_SUCCEEDED:
        raise RuntimeError(f"the job did not succeed: {snapshot.failure.message or trainer_state(snapshot)}")
    return recipes.ran(folder, began, snapshot.result.metrics, snapshot.result.environment)


def trainer_state(job: trainer.TrainingJob) -> str:
    """The state in words."""
    return types.JobState.Name(job.state)[10:].lower()


def pair(number: int, in_suite: Callable[[], Ran], bare: Callable[[int], Ran]) -> tuple[Ran, Ran]:
    """One run of each, the bare one first in every other pair: what drifts strikes both alike."""
    if number % 2:
        alone = bare(number)
        return in_suite(), alone
    return in_suite(), bare(number)


def bare(given: Path, parent: Path, number: int) -> Ran:
    """The same recipe on the same files, with nothing around it."""
    folder = parent / f"bare-{number}"
    shutil.copytree(given, folder)
    return recipes.run(folder, "sft")


def figures(pairs: list[tuple[Ran, Ran]], steps: int) -> list[Figure]:
    """Both figures of the same pairs (suite, bare)."""
    threads = {each.threads for pair in pairs for each in pair}
    if len(threads) != 1:
        raise RuntimeError(f"the two sides ran with different numbers of threads: {sorted(threads)}")
    ratios = [suite.tokens_per_s / bare.tokens_per_s for suite, bare in pairs]
    overheads = [suite.first_step_s - bare.first_step_s for suite, bare in pairs]
    common: dict[str, Any] = {
        "n": len(pairs),
        "statistic": "median of pairs",
        "beside": f"on both sides the suite, idle but for the job itself (without evaluator; engine host without "
        f"engines); pairs in turns, {threads.pop()} threads",
    }
    low, high = order_bounds(ratios, 0.5)
    ratio = Figure(
        name="train_ratio",
        value=quantile(ratios, 0.5),
        low=low,
        high=high,
        target=TARGET_RATIO,
        at_least=True,
        start="training begins (LoRA on the demo's base)",
        end=f"step {steps}; tokens/s of the suite's job over those of the bare recipe, by the recipe's own count",
        details={
            "suite_tokens_per_s": statistics.median(suite.tokens_per_s for suite, _ in pairs),
            "bare_tokens_per_s": statistics.median(bare.tokens_per_s for _, bare in pairs),
            "least": min(ratios),
            "most": max(ratios),
        },
        **common,
    )
    low, high = order_bounds(overheads, 0.5)
    overhead = Figure(
        name="submit_overhead_s",
        value=quantile(overheads, 0.5),
        low=low,
        high=high,
        target=TARGET_S,
        start="the client submits; bare: the recipe is spawned",
        end="the first step is done; the bare run's time is subtracted",
        details={
            "suite_s": statistics.median(suite.first_step_s for suite, _ in pairs),
            "bare_s": statistics.median(bare.first_step_s for _, bare in pairs),
            "least": min(overheads),
            "most": max(overheads),
        },
        **common,
    )
    return [ratio, overhead]
