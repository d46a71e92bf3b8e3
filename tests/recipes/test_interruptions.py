"""Runs that are killed, paused or cancelled, and what resuming makes of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from services.trainer.recipes.job.jobdir import run_recorded
from tests.recipes.jobs import command, digests, progress, result

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

LORA = {"rank": 4, "alpha": 8, "dropout": 0.1}  # dropout, so that the random state matters too


def kill_after_step(job: Path, step: int) -> None:
    """Start the recipe as a process and SIGKILL it once it has reported `step`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "services.trainer.recipes.sft", str(job)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not any(line["step"] >= step for line in steps_so_far(job)):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (job / "result.json").exists()


def steps_so_far(job: Path) -> list[dict]:
    return progress(job, "step") if (job / "progress.jsonl").exists() else []


def test_killed_and_resumed_gives_the_same_weights(recipes: SimpleNamespace, sft_job: Callable[..., Path]) -> None:
    plan = {"max_steps": 40, "gradient_accumulation_steps": 2, "batch_size": 4}
    whole, killed = (
        sft_job(name, lora=LORA, optimization=plan, checkpoint_every_steps=7) for name in ("whole", "killed")
    )
    assert run_recorded(whole, recipes.sft.train) == 0
    kill_after_step(killed, 17)
    half_written = killed / "checkpoints" / "checkpoint-99"
    half_written.mkdir()
    (half_written / "trainer_state.json").write_text("{}")

    assert run_recorded(killed, recipes.sft.train) == 0
    phases = [line["message"] for line in progress(killed, "phase")]
    resumed = [p for p in phases if p.startswith("resuming from checkpoint-")]
    assert len(resumed) == 1 and int(resumed[0].rsplit("-", 1)[1]) >= 14 and "99" not in resumed[0]
    assert digests(killed / "out") == digests(whole / "out")
    assert (killed / "parity.jsonl").read_bytes() == (whole / "parity.jsonl").read_bytes()
    for figure in ("final_loss", "tokens", "steps"):
        assert result(killed)["metrics"][figure] == result(whole)["metrics"][figure]


def test_a_checkpoint_with_a_cut_file_is_not_resumed_from(tmp_path: Path) -> None:
    from services.trainer.recipes.job.checkpoints import newest, seal

    for step in (5, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"12345")
        seal(folder)
    assert newest(tmp_path) == tmp_path / "checkpoint-10"
    (tmp_path / "checkpoint-10" / "model.safetensors").write_bytes(b"12")
    assert newest(tmp_path) == tmp_path / "checkpoint-5"
    assert not (tmp_path / "checkpoint-10").exists()


def test_pause_then_resume(recipes: SimpleNamespace, sft_job: Callable[..., Path]) -> None:
    whole, paused = (sft_job(name, lora=LORA) for name in ("whole", "paused"))
    assert run_recorded(whole, recipes.sft.train) == 0
    command(paused, "pause")
    assert run_recorded(paused, recipes.sft.train) == 0
    found = result(paused)
    assert found["outcome"] == "paused" and found["artifact"] is None and found["metrics"]["steps"] == 1
    assert [line["step"] for line in progress(paused, "checkpoint")] == [1]
    assert not (paused / "out").exists()

    (paused / "control.json").unlink()
    assert run_recorded(paused, recipes.sft.train) == 0
    assert result(paused)["outcome"] == "succeeded"
    assert digests(paused / "out") == digests(whole / "out")


def test_cancel_keeps_nothing_and_is_no_failure(recipes: SimpleNamespace, sft_job: Callable[..., Path]) -> None:
    job = sft_job(lora=LORA)
    command(job, "cancel")
    assert run_recorded(job, recipes.sft.train) == 0
    found = result(job)
    assert found["outcome"] == "cancelled" and found["error"] is None and found["artifact"] is None
    assert not (job / "out").exists() and not list((job / "checkpoints").glob("checkpoint-*"))
