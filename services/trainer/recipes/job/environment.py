"""What a recipe ran on, as strings, and how long its process has run; knows no job."""

import hashlib
import os
import platform
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

import psutil

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers")


def describe_environment(seed: int | None) -> dict[str, str]:
    """Python, package versions, git commit, seed, process id, threads, hardware; nothing that names the machine."""
    found = {"python": platform.python_version(), "pid": str(os.getpid()), **hardware()}
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


def installed() -> list[str]:
    """`name==version` of every package that Python finds, sorted; of one that is there twice the first, which it takes.

    Names as PEP 503 spells them.
    """
    found: dict[str, str] = {}
    for each in distributions():
        if each.name:  # what a broken installation left has none
            found.setdefault(re.sub(r"[-_.]+", "-", each.name).lower(), each.version)
    return sorted(f"{name}=={number}" for name, number in found.items())


def lock_digest(packages: Sequence[str]) -> str:
    """SHA-256 over the lines of `installed`, each with its line feed."""
    return "sha256:" + hashlib.sha256("".join(f"{each}\n" for each in packages).encode()).hexdigest()


def hardware() -> dict[str, str]:
    """`cpu`, `cores` that this process may use, `memory` of the machine, `accelerators` that torch sees, in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu(),
        "cores": str(cores),
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "accelerators": _accelerators(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _accelerators() -> str:
    torch = sys.modules.get("torch")
    if torch is None:
        return "unknown"
    kind = torch.accelerator.current_accelerator(check_available=True)
    if kind is None:
        return "none"
    found, count = torch.get_device_module(kind), torch.accelerator.device_count()
    if not hasattr(found, "get_device_properties"):  # Apple's
        return f"{count} x {kind.type}"
    each = map(found.get_device_properties, range(count))
    counted = Counter(f"{one.name} ({one.total_memory / 1e9:.0f} GB)" for one in each)
    return ", ".join(f"{count} x {name}" for name, count in counted.items())
