"""Reads the figures that recipes left of their steps, attempt by attempt; it judges none of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kit.telemetry import get_log
from services.trainer.folders import JobFolder
from services.trainer.told import Line, figures_of, read_lines, whole
from sluice.trainer import v1 as trainer

log = get_log(__name__)
#: So many steps, or steps of so many bytes and the one that passed it, are below what a message may carry.
BATCH = 200
BATCH_BYTES = 1 << 20
#: The end of what a Timestamp can say, the year 10000.
LAST_TIME_S = 253402300800


def read_steps(jobs: Path, job: trainer.TrainingJob) -> Iterator[list[trainer.TrainingStep]]:
    """The steps and evaluations of each attempt as they were taken, some at a time; lines that are neither are not."""
    some: list[trainer.TrainingStep] = []
    size = 0
    for step in _steps(jobs, job):
        some.append(step)
        size += step.ByteSize()
        if len(some) == BATCH or size > BATCH_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def _steps(jobs: Path, job: trainer.TrainingJob) -> Iterator[trainer.TrainingStep]:
    for attempt in job.attempts:
        left_out = 0
        for line in _lines(JobFolder.of(jobs, job.name).attempt(attempt.epoch).path / "progress.jsonl"):
            if line is not None and line.get("kind") not in ("step", "eval"):
                continue
            step = _step(line, attempt.epoch) if line is not None else None
            if step is None:
                left_out += 1
            else:
                yield step
        if left_out:
            log.warning("progress_left_out", training_job=job.name, epoch=attempt.epoch, lines=left_out)


def _step(line: Line, epoch: int) -> trainer.TrainingStep | None:
    """What a line says of a step; None where its number cannot be told."""
    number = whole(line.get("step"))
    if number is None:
        return None
    made = trainer.TrainingStep(epoch=epoch, step=number, evaluation=line["kind"] == "eval", figures=figures_of(line))
    time = line.get("time")
    if isinstance(time, int | float) and 0 <= time < LAST_TIME_S:
        made.time.FromNanoseconds(int(time * 1e9))
    return made


def _lines(path: Path) -> Iterator[Line | None]:
    try:
        with path.open("rb") as file:
            yield from read_lines(file)
    except FileNotFoundError:
        return
