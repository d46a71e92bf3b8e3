"""``rollback_ms``: how long after a rollback was asked for the last request still goes to the version it is about."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.intervals import order_bounds, quantile
from sluice.registry import v1 as registry
from tests.invariants import served
from tests.pipeline import ENDPOINT, Pipeline, pipeline

TARGET_MS = 1000.0
ROLLBACKS, QUICK_ROLLBACKS = 60, 5  # the largest of 59 bounds a p95
CLIENTS = 8
#: Half of the traffic for as long as nobody asks for more.
PLAN = ((50, 3600.0, 1), (100, 0.0, 0))
BEFORE_S, AFTER_S = 0.5, 0.5


@dataclass(frozen=True)
class Rollback:
    """When one was asked for and answered, and until when late requests belong to it; epoch seconds."""

    asked: float
    answered: float
    watched: float


def measure(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """Gives a version half of the traffic and takes it away again, over and over."""
    count = QUICK_ROLLBACKS if options.quick else ROLLBACKS
    with pipeline(folder) as suite:
        suite.create_endpoint()
        suite.let_in_by(*PLAN)
        suite.base()
        version = suite.decided(suite.version_of(suite.end_of(suite.train()).name).name)
        assert version.state == registry.MODEL_VERSION_STATE_APPROVED
        with suite.traffic(threads=CLIENTS) as seen:
            done = [roll_back(suite, version.name, first=number == 0) for number in range(count)]
        lines = served(folder / "home")
        failures = sum(seen.failures.values())
    to_version = sorted(line["time"] for line in lines if line["version"] == version.name)
    last_ms, loads = [], []
    for each in done:
        late = [at for at in to_version if each.asked <= at <= each.watched]
        last_ms.append((late[-1] - each.asked) * 1e3 if late else 0.0)
        loads.append(sum(each.asked - BEFORE_S <= at < each.asked for at in to_version) / BEFORE_S)
    low, high = order_bounds(last_ms, 0.95)
    answered = [(each.answered - each.asked) * 1e3 for each in done]
    details = {"p50": quantile(last_ms, 0.5), "max": max(last_ms)}
    details |= {"answered_p50": quantile(answered, 0.5), "answered_p95": quantile(answered, 0.95)}
    details |= {"before_per_s_p50": quantile(loads, 0.5), "before_per_s_min": min(loads), "failures": failures}
    return [
        Figure(
            name="rollback_ms",
            statistic="p95",
            value=quantile(last_ms, 0.95),
            low=low,
            high=high,
            n=len(done),
            target=TARGET_MS,
            start="RollbackRollout is sent (which is before it is accepted)",
            end="last request that a worker's record says was admitted to the version",
            beside=f"a whole suite with fake engines, {CLIENTS} clients that ask without a break, half of them for it",
            details=details,
            note="answered: when the rpc returned; before_per_s: requests a second to the version just before it; "
            "failures: answers of all clients that were no success.",
        )
    ]


def roll_back(suite: Pipeline, version: str, *, first: bool) -> Rollback:
    """One rollout and its rollback; the first rollout is the one that the approval caused."""
    if not first:
        suite.client.rollouts.create(ENDPOINT, version)
    rollout = suite.at_weight(version, 50)
    time.sleep(BEFORE_S * 2)  # traffic reaches it
    asked = time.time()
    suite.client.rollouts.rollback(rollout.name)
    answered = time.time()
    time.sleep(AFTER_S)
    return Rollback(asked, answered, time.time())
