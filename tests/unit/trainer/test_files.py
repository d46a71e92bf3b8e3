"""What is read from and left in the folders of a job: logs, progress, endings, wiping, locks, settings."""

import json
import os
from pathlib import Path

import pytest
from training_jobs import NAME, S, job_in, later

from services.trainer import domain
from services.trainer.agent.progress import ProgressFile
from services.trainer.agent.results import read_ending
from services.trainer.folders import JobFolder
from services.trainer.logs import PIECE_BYTES, follow, read_once
from services.trainer.settings import TrainerSettings
from sluice.errors import v1 as errors
from sluice.trainer import v1 as trainer


def write_log(jobs: Path, data: bytes, epoch: int = 1) -> None:
    folder = JobFolder.of(jobs, NAME).attempt(epoch)
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.log.open("ab") as file:
        file.write(data)


async def read(jobs: Path, job: trainer.TrainingJob) -> list[tuple[int, str]]:
    return [piece async for piece in read_once(jobs, job)]


async def test_a_log_is_text_without_controls_and_secrets(tmp_path: Path) -> None:
    write_log(tmp_path, b"\x1b[31mred\x07\x00\r\n\xff key sk-sluice-abcdef_123\npart")
    assert await read(tmp_path, job_in("RUNNING")) == [
        (1, "[31mred\n\N{REPLACEMENT CHARACTER} key sk-sluice-[redacted]\n"),
        (1, "part"),
    ]


async def test_a_long_log_comes_in_pieces_that_fit_a_message(tmp_path: Path) -> None:
    write_log(tmp_path, b"\xff" * (3 * PIECE_BYTES))
    pieces = await read(tmp_path, job_in("RUNNING"))
    assert len(pieces) == 3
    assert all(len(text.encode()) <= 64 * 1024 for _, text in pieces)


async def test_following_ends_with_the_job_and_misses_nothing(tmp_path: Path) -> None:
    states = iter([job_in("RUNNING"), job_in("SUCCEEDED")])
    written = iter([b"one\ntw", b"o\nend"])

    async def next_job() -> trainer.TrainingJob:
        write_log(tmp_path, next(written))
        return next(states)

    assert "".join([text async for _, text in follow(tmp_path, next_job)]) == "one\ntwo\nend"


def test_progress_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    told = ProgressFile(path)
    assert not told.read_on()
    lines = [
        {"kind": "phase", "message": "resuming from checkpoint-10"},
        {"kind": "step", "step": 11, "total_steps": 20, "loss": 0.5, "time": 1.0, "grad_norm": float("nan")},
        {"kind": "eval", "step": 11, "total_steps": 20, "loss": 0.7},
    ]
    whole = "".join(json.dumps(line) + "\n" for line in lines)
    huge = "1" + "0" * 400
    odd = f'{{"step": {huge}, "loss": {huge}}}\n' + "x" * 2**20 + "\n" + "[" * 100_000 + "\n"
    path.write_text(odd + "no json\n" + whole[:-5])
    assert told.read_on()
    assert (told.resumed_from_step, told.progress.done, told.progress.total) == (10, 11, 20)
    assert dict(told.progress.figures) == {"loss": 0.5}
    path.write_text(odd + "no json\n" + whole)
    assert told.read_on()
    assert dict(told.progress.figures) == {"loss": 0.5, "eval_loss": 0.7}
    told.close()


@pytest.mark.parametrize(
    ("status", "result", "outcome", "reason"),
    [
        (-9, '{"outcome": "succeeded"}', "LOST", None),
        (0, '{"outcome": "succeeded"}', "SUCCEEDED", None),
        (0, '{"outcome": "paused"}', "PAUSED", None),
        (1, '{"outcome": "failed", "error": {"reason": "OUT_OF_MEMORY"}}', "FAILED", "OUT_OF_MEMORY"),
        (1, '{"outcome": "failed", "error": {"reason": "BAD_INPUT"}}', "FAILED", "INVALID_FIELD"),
        (1, '{"outcome": "succeeded"}', "FAILED", "INTERNAL"),
        (0, "[]", "FAILED", "INTERNAL"),
        (0, "{", "FAILED", "INTERNAL"),
    ],
)
def test_how_a_recipe_ended(tmp_path: Path, status: int, result: str, outcome: str, reason: str | None) -> None:
    folder = JobFolder(tmp_path).attempt(1)
    folder.path.mkdir()
    (folder.path / "result.json").write_text(result)
    ending, _ = read_ending(folder, status)
    assert ending.outcome == trainer.AttemptOutcome.Value(f"ATTEMPT_OUTCOME_{outcome}")
    assert (ending.failure is None) == (reason is None)
    if ending.failure is not None:
        assert ending.failure.reason == errors.ErrorReason.Value(f"ERROR_REASON_{reason}")
        assert ending.failure.message


def test_a_new_attempt_finds_the_checkpoints_and_nothing_else(tmp_path: Path) -> None:
    job = JobFolder(tmp_path / "job")
    for epoch in (1, 2):
        job.attempt(epoch).create()
    (job.attempt(1).path / "checkpoints" / "checkpoint-5").mkdir()
    (job.attempt(1).path / "in" / "train.jsonl").write_text("row")
    assert (job.attempt(2).path / "checkpoints" / "checkpoint-5").is_dir()
    job.wipe(keep_checkpoints=True)
    assert not (job.attempt(1).path / "in").exists()
    assert (job.path / "checkpoints" / "checkpoint-5").is_dir()
    job.wipe(keep_checkpoints=False)
    assert not (job.path / "checkpoints").exists()


def test_one_attempt_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    job = JobFolder(tmp_path / "job")
    held = job.try_lock()
    assert held is not None
    assert job.try_lock() is None
    os.close(held)
    again = job.try_lock()
    assert again is not None
    os.close(again)


@pytest.mark.parametrize("text", ["0", "many", "1.5", "-1"])
def test_a_wrong_setting_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=f"SLUICE_TRAINER_MAX_JOBS is `{text}`; it takes a whole number from 1"):
        TrainerSettings.from_env({"SLUICE_TRAINER_MAX_JOBS": text})


def test_a_retried_job_is_live_again_only_with_its_new_attempt() -> None:
    job = job_in("FAILED")
    domain.retry(job, later())
    epoch = domain.claim(job, "host", later())
    assert (epoch, domain.has_live_attempt(job, 1), domain.has_live_attempt(job, 2)) == (2, False, True)
    assert job.state == S["PREPARING"]
