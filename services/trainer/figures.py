"""Reads the figures that recipes left of their steps, attempt by attempt; it judges none of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from services.trainer.folders import JobFolder
from sluice.trainer import v1 as trainer

#: So many steps are far below what a message may carry.
BATCH = 200
MAX_LINE_BYTES = 1 << 20
#: The end of what a Timestamp can say, the year 10000.
LAST_TIME_S = 253402300800
#: Keys of a line that are no figures.
ABOUT = ("time", "kind", "step", "total_steps", "message")


def read_steps(jobs: Path, job: trainer.TrainingJob) -> Iterator[list[trainer.TrainingStep]]:
    """The steps and evaluations of each attempt as they were taken, some at a time; lines that are neither are not."""
    steps = _steps(jobs, job)
    while some := list(islice(steps, BATCH)):
        yield some


def _steps(jobs: Path, job: trainer.TrainingJob) -> Iterator[trainer.TrainingStep]:
    for attempt in job.attempts:
        for line in _lines(JobFolder.of(jobs, job.name).attempt(attempt.epoch).path / "progress.jsonl"):
            if line.get("kind") in ("step", "eval") and isinstance(line.get("step"), int):
                made = trainer.TrainingStep(
                    epoch=attempt.epoch,
                    step=line["step"],
                    evaluation=line["kind"] == "eval",
                    figures={
                        name: float(value)
                        for name, value in line.items()
                        if name not in ABOUT and isinstance(value, int | float) and math.isfinite(value)
                    },
                )
                time = line.get("time")
                if isinstance(time, int | float) and 0 <= time < LAST_TIME_S:
                    made.time.FromNanoseconds(int(time * 1e9))
                yield made


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            # What lacks its end is being written.
            while (line := file.readline(MAX_LINE_BYTES)).endswith(b"\n"):
                try:
                    found = json.loads(line)
                except ValueError:  # half a line, of a disk that was full
                    continue
                if isinstance(found, dict):
                    yield found
    except FileNotFoundError:
        return
