"""``pss_mb``: the memory of an idle suite, each shared page counted once."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

import psutil

from benchmarks.figure import Figure
from benchmarks.intervals import order_bounds, quantile
from tests.suite import Suite

TARGET_MB = 550.0
STARTS, QUICK_STARTS = 5, 2
SETTLED_S, QUICK_SETTLED_S = 60.0, 5.0


def measure(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """Sums the processes of a suite a minute after it was ready, at several starts."""
    starts, settled_s = (QUICK_STARTS, QUICK_SETTLED_S) if options.quick else (STARTS, SETTLED_S)
    suite = Suite(folder)
    sums: list[float] = []
    processes: dict[str, float] = {}
    try:
        suite.start()
        suite.stop()
        for _ in range(starts):
            suite.start()
            time.sleep(settled_s)
            processes = pss_mb(suite)
            sums.append(sum(processes.values()))
            suite.stop()
    finally:
        suite.close()
    low, high = order_bounds(sums, 0.5)
    return [
        Figure(
            name="pss_mb",
            statistic="median",
            value=quantile(sums, 0.5),
            low=low,
            high=high,
            n=len(sums),
            target=TARGET_MB,
            start="`sluice up`, second start of a home",
            end=f"{settled_s:.0f} s after it was ready",
            beside="no engine, no job, no request",
            details={**processes, "max": max(sums)},
            note="MB of 10^6 bytes; the processes are those of the last start. Library pages that other Python "
            "processes of this machine map at the same time count for them too.",
        )
    ]


def pss_mb(suite: Suite) -> dict[str, float]:
    """The proportional set size of every process that ``up`` started, itself included, in MB (10^6 bytes)."""
    up = psutil.Process(suite.state["pid"])
    names = {pid: name for name, pid in suite.pids.items()}
    found = {"up": _pss_mb(up.pid)}
    for child in up.children(recursive=True):
        name = names.get(child.pid, child.name())
        found[name] = found.get(name, 0.0) + _pss_mb(child.pid)
    return found


def _pss_mb(pid: int) -> float:
    match = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024 / 1e6
