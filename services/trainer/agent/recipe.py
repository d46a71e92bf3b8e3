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
from services.trainer.exporting import commands
from services.trainer.folders import AttemptFolder
from sluice.trainer import v1 as trainer

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
        "vision": ("vision", "audio"),
        "fusion": ("fusion",),
        "policy": ("grpo", "rloo"),
        "ppo": ("ppo",),
        "distillation": ("gkd",),
        "token_classification": ("token_classification",),
    }.items()
    for name in names
}
RECIPES |= commands()
#: What a recipe may see of the environment: no address, no password, no path of ours.
ALLOWED = (
    *("HOME", "LANG", "PATH", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", ATTEMPT),
    *("SLUICE_DEVICE_TYPE", "DEVICE_TYPE"),
)
ALLOWED_PREFIXES = (
    *("LC_", "CUDA_", "NVIDIA_", "NCCL_", "PYTORCH_", "TORCH_", "MKL_"),
    *("HIP_", "ROCR_", "ZE_", "SYCL_", "ONEAPI_", "CCL_", "ASCEND_", "HCCL_"),  # AMD's, Intel's and Ascend's
)
#: What Apple's GPUs have no operation for is done by the processor; torch reads it when it is imported.
ALWAYS = {"PYTORCH_ENABLE_MPS_FALLBACK": "1"}
#: The number of the socket to the judge; what is said there stands in `recipes/reinforcement/judge.py`.
JUDGE = "SLUICE_JUDGE"
LEASH = Path(__file__).with_name("leash.py")
#: What runs a recipe once for each device of its job; to the agent it is the recipe.
RANKS = (sys.executable, "-m", "services.trainer.recipes.distributed.ranks")


def shared_out(command: Sequence[str], spec: trainer.TrainingJobSpec) -> Sequence[str]:
    """The command of a recipe, as one process or as many as the spec has devices."""
    return (*RANKS, *command) if spec.distribution.devices > 1 else command


async def start(
    command: Sequence[str], folder: AttemptFolder, environ: Mapping[str, str], lock: int, judge: int | None = None
) -> asyncio.subprocess.Process:
    """Starts a recipe in a process group of its own; it dies with this process and holds ``lock`` while it lives.

    ``judge`` is the socket over which it may have answers graded, where it may.
    """
    kept = ALWAYS | {
        name: value for name, value in environ.items() if name in ALLOWED or name.startswith(ALLOWED_PREFIXES)
    }
    # Its working folder holds what it was given, so that must not be where Python looks for modules.
    root = str(Path(services.__file__).parents[1])
    kept |= {"PYTHONPATH": root, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
    kept["TRACEPARENT"] = telemetry.current_traceparent()
    if judge is not None:
        kept[JUDGE] = str(judge)
    with folder.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *command, str(folder.path)),
            cwd=folder.path,
            env=kept,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
            pass_fds=[lock] if judge is None else [lock, judge],
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
