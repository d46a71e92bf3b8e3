"""``ready_s``: how long the second start of a suite takes, until every service has answered somebody it knows."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.intervals import order_bounds, quantile
from sluice import Client
from tests.suite import Suite

TARGET_S = 10.0
STARTS, QUICK_STARTS = 7, 2


def measure(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """Starts a suite once, and then again and again in the same home."""
    suite = Suite(folder)
    took, serving = [], []
    try:
        suite.start()
        suite.stop()
        for _ in range(QUICK_STARTS if options.quick else STARTS):
            began = time.monotonic()
            suite.start()
            serving.append(time.monotonic() - began)
            ask_each(suite)
            took.append(time.monotonic() - began)
            suite.stop()
    finally:
        suite.close()
    low, high = order_bounds(took, 0.5)
    return [
        Figure(
            name="ready_s",
            statistic="median",
            value=quantile(took, 0.5),
            low=low,
            high=high,
            n=len(took),
            target=TARGET_S,
            start="spawn of `python -m services up`, second start of a home",
            end="all services SERVING and one authenticated rpc answered by each of the five",
            beside="nothing of ours",
            details={"max": max(took), "serving_median": quantile(serving, 0.5)},
        )
    ]


def ask_each(suite: Suite) -> None:
    """One rpc to each service under the administrator's key, through the public port."""
    with Client(suite.state["address"], suite.key) as client:
        client.datasets.list()
        client.jobs.list()
        client.evaluations.list()
        client.models.list()
        client.endpoints.list()
