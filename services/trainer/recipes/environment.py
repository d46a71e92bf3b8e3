"""What a recipe ran on, as strings, and what its process used; knows no job."""

import os
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers")


def describe_environment(seed: int | None) -> dict[str, str]:
    """Python, package versions, git commit, seed, process id and threads; nothing that names the machine."""
    found = {"python": platform.python_version(), "pid": str(os.getpid())}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if seed is not None:
        found["seed"] = str(seed)
    if (commit := _commit()) is not None:
        found["commit"] = commit
    torch = sys.modules.get("torch")  # a run that failed early has not imported it
    if torch is not None:
        found["threads"] = str(torch.get_num_threads())
    return found


def _commit() -> str | None:
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def process_age_s() -> float:
    """Seconds since this process started, imports included."""
    return time.time() - psutil.Process().create_time()


def peak_rss_mb() -> float:
    """The most memory this process ever held, in MB (10^6 bytes)."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1e6 if sys.platform == "darwin" else used * 1024 / 1e6  # bytes there, KiB on Linux
