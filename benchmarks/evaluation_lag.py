"""``evaluation_lag_p95_ms``: how long after a job's success its evaluation stands in the evaluator's database.

The way: trainer's outbox → relay → JetStream → registry (a model version) → its outbox → … → evaluator.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

from benchmarks.completions import ORDER
from benchmarks.figure import Figure
from benchmarks.intervals import bootstrap_bounds, quantile
from sluice import Client
from tests.suite import Suite

TARGET_MS = 300.0
#: Slower than the suite can go on two cores, or the figure would be the length of a queue.
COUNT, QUICK_COUNT, PER_S = 240, 40, 4.0
LOOK_S, PATIENCE_S = 0.005, 60.0


def measure(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """Has a trainer tell of successes and watches the evaluator's database; engines there are none."""
    count = QUICK_COUNT if options.quick else COUNT
    suite = Suite(folder, module="benchmarks.completions")
    try:
        suite.start()
        order = suite.home / ORDER
        order.with_suffix(".new").write_text(json.dumps({"count": count, "per_s": PER_S}))
        order.with_suffix(".new").rename(order)
        seen = watch(suite.home / "db" / "evaluator.db", count)
        with Client(suite.state["address"], suite.key) as client:
            parts = legs(client, seen)
    finally:
        suite.close()
    lags = [sum(each) for each in parts]
    low, high = bootstrap_bounds(lags, 0.95)
    names = ("told_to_version", "version_to_evaluation", "evaluation_to_seen")
    middle = {f"{name}_p50": quantile([each[at] for each in parts], 0.5) for at, name in enumerate(names)}
    tail = {f"{name}_p95": quantile([each[at] for each in parts], 0.95) for at, name in enumerate(names)}
    return [
        Figure(
            name="evaluation_lag_p95_ms",
            statistic="p95",
            value=quantile(lags, 0.95),
            low=low,
            high=high,
            n=len(lags),
            target=TARGET_MS,
            start="time of the event training_job.succeeded, taken as its transaction opens",
            end=f"the Evaluation is seen by a reader of the database that looks every {LOOK_S * 1e3:.0f} ms",
            beside=f"a whole suite, {PER_S:.0f} successes a second; every evaluation is validated at once and fails "
            "for want of its dataset, no engine",
            details={"p50": quantile(lags, 0.5), "max": max(lags), **middle, **tail},
            note="Bounds by bootstrap over blocks of ten neighbors. The successes are made in the trainer's process: "
            "a commit from outside would wait for the relay's next look, up to a second, as no real one does.",
        )
    ]


def watch(database: Path, count: int) -> dict[str, float]:
    """When each of ``count`` evaluations was first seen, in epoch seconds, by name."""
    seen: dict[str, float] = {}
    row, deadline = 0, time.monotonic() + PATIENCE_S + count / PER_S
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    query = "SELECT rowid, name FROM evaluator_evaluation WHERE rowid > ? ORDER BY rowid"
    try:
        while len(seen) < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"error: {len(seen)} of {count} evaluations came in time")
            time.sleep(LOOK_S)
            found = connection.execute(query, (row,)).fetchall()
            now = time.time()
            seen |= {name: now for _, name in found}
            row = found[-1][0] if found else row
    finally:
        connection.close()
    return seen


def legs(client: Client, seen: dict[str, float]) -> list[tuple[float, float, float]]:
    """Milliseconds from each success to its version, on to its evaluation, and on to where that was seen; in order."""
    told = client.events().list(limit=0)
    successes = [each for each in told if each.type == "sluice.trainer.v1.training_job.succeeded"]
    versions = {each.lineage.training_job: each for each in client.models.versions("-")}
    evaluations = {each.model_version: each for each in client.evaluations.list()}
    found = []
    for event in sorted(successes, key=lambda event: _ms(event.time)):
        version = versions[event.subject]
        evaluation = evaluations[version.name]
        times = [_ms(event.time), _ms(version.create_time), _ms(evaluation.create_time), seen[evaluation.name] * 1e3]
        found.append((times[1] - times[0], times[2] - times[1], times[3] - times[2]))
    return found


def _ms(time_: Any) -> float:
    return float(time_.ToNanoseconds()) / 1e6
