"""``ingest_vs_hf``: a file's way into the suite against Hugging Face's way into its cache, which only parses it."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.intervals import order_bounds, quantile
from sluice import Client
from tests.suite import Suite, suite

TARGET = 0.5
MEGABYTES, QUICK_MEGABYTES = 185, 20
PAIRS, QUICK_PAIRS = 9, 2
#: Reads the path of a file and of a fresh cache from each line, and answers with the seconds it took.
PEER = """
import sys, time, datasets
datasets.disable_progress_bars()
print("ready", flush=True)
for line in sys.stdin:
    file, cache = line.rstrip().split("\\t")
    begun = time.perf_counter()
    rows = datasets.load_dataset("json", data_files=file, cache_dir=cache, split="train")
    print(time.perf_counter() - begun, len(rows), flush=True)
"""


def measure(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """Both in turns on the same file; the first of each is thrown away."""
    size_mb, pairs = (QUICK_MEGABYTES, QUICK_PAIRS) if options.quick else (MEGABYTES, PAIRS)
    file = folder / "rows.jsonl"
    rows = write_rows(file, size_mb * 10**6)
    ours, theirs = [], []
    with suite(folder / "suite") as running, Peer(folder / "cache") as peer, client_of(running) as client:
        for turn in range(pairs + 1):
            theirs.append(peer.load(file, rows))
            ours.append(ingest(client, file, f"ingest-{turn}", rows))
    ratios = [their / our for our, their in zip(ours[1:], theirs[1:], strict=True)]
    megabytes = file.stat().st_size / 1e6
    low, high = order_bounds(ratios, 0.5)
    return [
        Figure(
            name="ingest_vs_hf",
            statistic="median of pairs",
            value=quantile(ratios, 0.5),
            low=low,
            high=high,
            n=len(ratios),
            target=TARGET,
            at_least=True,
            start="upload() opens the file; peer: load_dataset('json') is called, on a fresh cache",
            end="the version is committed and acknowledged, on disk; peer: the dataset is loaded",
            beside="the whole suite, idle; both in turns, 2 cores for all",
            details={
                "suite_mb_s": megabytes / statistics.median(ours[1:]),
                "peer_mb_s": megabytes / statistics.median(theirs[1:]),
                "file_mb": megabytes,
                "rows": float(rows),
            },
            note="Row checks on; tokenizer, near-duplicates and de-identification off. Through the public port.",
        )
    ]


def client_of(running: Suite) -> Client:
    """A client of a suite at its public port."""
    return Client(running.address(), running.key)


def ingest(client: Client, file: Path, name: str, rows: int) -> float:
    """Seconds from open to the acknowledged version."""
    begun = time.perf_counter()
    version = client.datasets.upload(name=name, path=file, task_type="sft")
    taken = time.perf_counter() - begun
    assert version.row_count == rows, (version.row_count, rows)
    return taken


class Peer:
    """A warm process of Hugging Face datasets."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", PEER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> Peer:
        assert self._answer() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def load(self, file: Path, rows: int) -> float:
        """Seconds of one load on a fresh cache."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{file}\t{self._folder}\n")
        self._process.stdin.flush()
        taken, found = self._answer().split()
        shutil.rmtree(self._folder)
        assert int(found) == rows
        return float(taken)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def write_rows(file: Path, size: int, seed: int = 0, *, ids: bool = True) -> int:
    """Writes conversations of both languages, about 500 bytes each, with or without `ids`; returns how many."""
    rng = random.Random(seed)
    words = [
        "account",
        "transfer",
        "card",
        "balance",
        "loan",
        "rate",
        "branch",
        "payment",
        "limit",
        "statement",
        "fee",
        "interest",
        "deposit",
    ]
    signs = "账户转账余额贷款利率网点付款限额对账单手续费利息存款挂失申请办理客户信用卡"
    rows = 0
    with file.open("w", encoding="utf-8") as out:
        while out.tell() < size:
            said = [
                " ".join(rng.choices(words, k=12)) if rng.random() < 0.5 else "".join(rng.choices(signs, k=40))
                for _ in range(4)
            ]
            messages = [
                {"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, said, strict=True)
            ]
            about = {"id": str(rows)} if ids else {}
            out.write(json.dumps({**about, "messages": messages}, ensure_ascii=False) + "\n")
            rows += 1
    return rows
