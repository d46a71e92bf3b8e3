"""What a recipe notes of the machine it ran on: packages, hardware, memory by phase."""

import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil

from services.trainer.recipes.job.environment import describe_environment, installed, lock_digest
from services.trainer.recipes.job.memory import PROC, Peaks


def test_the_lock_is_a_digest_over_every_installed_package() -> None:
    packages = installed()
    assert packages == sorted(packages)
    assert f"numpy=={version('numpy')}" in packages
    assert not [each for each in packages if "_" in each.partition("==")[0]]
    names = [each.partition("==")[0] for each in packages]
    assert len(names) == len(set(names))
    assert lock_digest(["a==1", "b==2"]) == "sha256:" + hashlib.sha256(b"a==1\nb==2\n").hexdigest()


def test_the_hardware_is_told_in_words_and_no_host_by_name() -> None:
    found = describe_environment(7)
    assert found["cores"] == str(len(os.sched_getaffinity(0)))
    assert found["memory"] == f"{psutil.virtual_memory().total / 1e9:.0f} GB"
    assert found["cpu"] and found["accelerators"]
    assert platform.node() not in found.values()


def test_memory_is_told_by_phase_and_the_whole_is_the_most_of_them() -> None:
    peaks = Peaks()
    peaks.phase("reading")
    held = np.ones(16_000_000)  # 128 MB, touched
    peaks.phase("resuming from checkpoint-5")
    del held
    peaks.phase("training")
    peaks.phase("saving")
    found = peaks.figures()
    whole = found.pop("peak_rss_mb")
    assert [*found] == [f"peak_rss_mb_{phase}" for phase in ("import", "load", "train", "save")]
    assert whole == max(found.values())
    assert found["peak_rss_mb_load"] - found["peak_rss_mb_train"] > 100


def test_where_the_mark_cannot_be_put_back_only_the_whole_is_told(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("VmPeak:\t 9 kB\nVmHWM:\t  2000000 kB\n")
    (tmp_path / "clear_refs").mkdir()
    peaks = Peaks(tmp_path)
    for phase in ("reading", "training", "saving"):
        peaks.phase(phase)
    assert peaks.figures() == {"peak_rss_mb": 2048.0}


def test_without_proc_the_whole_is_what_the_system_counts(tmp_path: Path) -> None:
    assert Peaks(tmp_path / "none").figures()["peak_rss_mb"] > 10
    assert (PROC / "clear_refs").exists()
