"""``rss_ratio`` and ``rss_mb``: what the dataset service holds while it takes a file, large and ten times smaller."""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

import psutil

from benchmarks.dataset_ingest import client_of, write_rows
from benchmarks.figure import Figure
from benchmarks.intervals import order_bounds, quantile
from tests.suite import Suite, suite

MOST_RATIO, MOST_MB = 1.2, 600.0
SMALL_MB, TIMES = 500, 10
QUICK_SMALL_MB = 50
PAIRS, QUICK_PAIRS = 5, 2
LOOK_S = 0.1


def measure(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """Sends the small file and the large one in turns."""
    small_mb, pairs = (QUICK_SMALL_MB, QUICK_PAIRS) if options.quick else (SMALL_MB, PAIRS)
    small, large = folder / "small.jsonl", folder / "large.jsonl"
    write_rows(small, small_mb * 10**6, ids=False)  # of which there are ten copies in the other
    with large.open("wb") as out:
        for _ in range(TIMES):
            out.write(small.read_bytes())
    peaks: dict[Path, list[float]] = {small: [], large: []}
    with suite(folder / "suite") as running, client_of(running) as client:
        for turn in range(pairs):
            for file in (small, large):
                with Watch(running) as watch:
                    client.datasets.upload(name=f"{file.stem}-{turn}", path=file, task_type="sft")
                peaks[file].append(watch.peak_mb)
    ratios = [most / least for most, least in zip(peaks[large], peaks[small], strict=True)]
    about = {
        "start": "the file is opened",
        "end": "the version is acknowledged",
        "beside": "the whole suite, idle",
        "n": pairs,
    }
    files = {"small_mb": small.stat().st_size / 1e6, "large_mb": large.stat().st_size / 1e6}
    ratio_low, ratio_high = order_bounds(ratios, 0.5)
    low, high = order_bounds(peaks[large], 0.5)
    return [
        Figure(
            "rss_ratio", "median of pairs", quantile(ratios, 0.5), ratio_low, ratio_high, target=MOST_RATIO, **about
        ),
        Figure(
            "rss_mb",
            "median",
            quantile(peaks[large], 0.5),
            low,
            high,
            target=MOST_MB,
            details={**files, "small_peak": quantile(peaks[small], 0.5), "max": max(peaks[large])},
            note="The most that the service and its processes held together, shared pages once; every 100 ms.",
            **about,
        ),
    ]


class Watch:
    """Looks at the resident memory of the dataset service and of what it started, each shared page once."""

    def __init__(self, running: Suite) -> None:
        self.peak_mb = 0.0
        self._service = psutil.Process(running.pids["dataset"])
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            try:
                all_of_it = [self._service, *self._service.children(recursive=True)]
                held = [each.memory_full_info().pss for each in all_of_it]
            except psutil.NoSuchProcess:  # a check that just ended
                continue
            self.peak_mb = max(self.peak_mb, sum(held) / 1e6)
