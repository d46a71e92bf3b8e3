"""Reads the logs that recipes leave, without control characters and known shapes of secrets; it writes nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

from kit.telemetry.logs import redact
from services.trainer.folders import JobFolder
from sluice.lifecycle import JOB, is_over
from sluice.trainer import v1 as trainer

PIECE_BYTES = 16 * 1024  # each invalid byte becomes three, and a message carries at most 64 KiB
POLL_S = 0.5
#: Everything that could move a terminal's cursor or change its state.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
Piece = tuple[int, str]


async def read_once(jobs: Path, job: trainer.TrainingJob) -> AsyncIterator[Piece]:
    """The log as it is now: (epoch, text) pairs, attempt by attempt."""
    for piece in _new_pieces(jobs, job, {}, final=True):
        yield piece


async def follow(jobs: Path, read: Callable[[], Awaitable[trainer.TrainingJob]]) -> AsyncIterator[Piece]:
    """The log as it grows, until the job is over."""
    offsets: dict[int, int] = {}
    while True:
        job = await read()  # before the files: a log is complete when its job is over
        over = is_over(JOB, job.state)
        for piece in _new_pieces(jobs, job, offsets, final=over):
            yield piece
        if over:
            return
        await asyncio.sleep(POLL_S)


def _new_pieces(jobs: Path, job: trainer.TrainingJob, offsets: dict[int, int], *, final: bool) -> Iterator[Piece]:
    for attempt in job.attempts:
        log = JobFolder.of(jobs, job.name).attempt(attempt.epoch).log
        while data := _lines(log, offsets.get(attempt.epoch, 0), final or attempt.HasField("end_time")):
            offsets[attempt.epoch] = offsets.get(attempt.epoch, 0) + len(data)
            yield attempt.epoch, redact(CONTROL.sub("", data.decode("utf-8", "replace")))


def _lines(log: Path, offset: int, final: bool) -> bytes:
    """Whole lines from ``offset`` on; part of one where it is too long, or the last and no more comes."""
    try:
        with log.open("rb") as file:
            file.seek(offset)
            data = file.read(PIECE_BYTES)
    except FileNotFoundError:
        return b""
    whole = data[: data.rfind(b"\n") + 1]
    return data if not whole and (final or len(data) == PIECE_BYTES) else whole
