"""Starts and ends the process of a recipe; which files it reads and writes is the recipe's matter."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import services
from kit import telemetry
from services.trainer.agent.assignment import ATTEMPT
from services.trainer.folders import AttemptFolder

#: The command of each recipe; the job directory is added.
RECIPES: dict[str, Sequence[str]] = {
    name: (sys.executable, "-m", f"services.trainer.recipes.{file}")
    for file, names in {
        "pretrain": ("pretrain",),
        "sft": ("sft",),
        "preference": ("dpo", "orpo", "cpo", "simpo"),
        "kto": ("kto",),
        "reward": ("rm",),
        "embedding": ("embedding",),
        "reranker": ("reranker",),
        "sequence_classification": ("sequence_classification",),
    }.items()
    for name in names
}
#: What a recipe may see of the environment: no address, no password, no path of ours.
ALLOWED = ("HOME", "LANG", "PATH", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", ATTEMPT)
ALLOWED_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "NCCL_", "PYTORCH_", "TORCH_", "MKL_")
LEASH = Path(__file__).with_name("leash.py")


async def start(
    command: Sequence[str], folder: AttemptFolder, environ: Mapping[str, str], lock: int
) -> asyncio.subprocess.Process:
    """Starts a recipe in a process group of its own; it dies with this process and holds ``lock`` while it lives."""
    kept = {name: value for name, value in environ.items() if name in ALLOWED or name.startswith(ALLOWED_PREFIXES)}
    # Its working folder holds what it was given, so that must not be where Python looks for modules.
    root = str(Path(services.__file__).parents[1])
    kept |= {"PYTHONPATH": root, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
    kept["TRACEPARENT"] = telemetry.current_traceparent()
    with folder.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *command, str(folder.path)),
            cwd=folder.path,
            env=kept,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
            pass_fds=[lock],
        )


async def end(process: asyncio.subprocess.Process) -> None:
    """Kills the recipe and what it started; nothing where it has ended."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def tell(folder: AttemptFolder, command: str) -> None:
    """Leaves a command (`pause` or `cancel`) for the end of the recipe's present step."""
    draft = folder.path / "control.json.part"
    draft.write_text(json.dumps({"command": command}))
    draft.replace(folder.path / "control.json")
