"""``read_mb_s`` and ``first_batch_ms``: stored rows on their way to a consumer, as decrypted Arrow."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks.dataset_ingest import client_of, write_rows
from benchmarks.figure import Figure
from benchmarks.intervals import order_bounds, quantile
from sluice.client.rows import OpenedVersion
from tests.suite import suite

LEAST_MB_S, MOST_FIRST_MS = 300.0, 50.0
MEGABYTES, QUICK_MEGABYTES = 185, 20
READS, QUICK_READS = 15, 3
FIRSTS, QUICK_FIRSTS = 80, 10


def measure(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """Reads one version whole, again and again, and its first batch, again and again."""
    size_mb, reads, firsts = (
        (QUICK_MEGABYTES, QUICK_READS, QUICK_FIRSTS) if options.quick else (MEGABYTES, READS, FIRSTS)
    )
    write_rows(folder / "rows.jsonl", size_mb * 10**6)
    with suite(folder / "suite") as running, client_of(running) as client:
        version = client.datasets.upload(name="read", path=folder / "rows.jsonl", task_type="sft")
        opened = client.datasets.open(version.name)
        read_once(opened)
        speeds = [read_once(opened) for _ in range(reads)]
        waits = [first_batch_ms(opened) for _ in range(firsts)]
    about = {"start": "the request is sent", "beside": "the whole suite, idle; the consumer on the same 2 cores"}
    return [
        Figure(
            name="read_mb_s",
            statistic="median",
            value=quantile(speeds, 0.5),
            low=order_bounds(speeds, 0.5)[0],
            high=order_bounds(speeds, 0.5)[1],
            n=len(speeds),
            target=LEAST_MB_S,
            at_least=True,
            end="the last batch is in the consumer's hands",
            details={"rows": float(version.row_count), "worst": min(speeds)},
            note="MB of 10^6 bytes of Arrow buffers, all columns and splits, through the public port.",
            **about,
        ),
        Figure(
            name="first_batch_ms",
            statistic="p95",
            value=quantile(waits, 0.95),
            low=order_bounds(waits, 0.95)[0],
            high=order_bounds(waits, 0.95)[1],
            n=len(waits),
            target=MOST_FIRST_MS,
            end="the first batch is in the consumer's hands",
            details={"p50": quantile(waits, 0.5), "max": max(waits)},
            **about,
        ),
    ]


def read_once(opened: OpenedVersion) -> float:
    """MB a second of one whole reading."""
    begun, read = time.perf_counter(), 0
    for batch in opened.batches():
        read += batch.nbytes
    return read / 1e6 / (time.perf_counter() - begun)


def first_batch_ms(opened: OpenedVersion) -> float:
    """Milliseconds until the first rows are there."""
    begun = time.perf_counter()
    batches = opened.batches()
    next(batches)
    waited = (time.perf_counter() - begun) * 1e3
    batches.close()
    return waited
