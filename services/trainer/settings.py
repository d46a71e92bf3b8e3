"""What the trainer is told by its environment beyond what every process is; read once and passed on by value."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kit.settings import Settings
from services.trainer.refusals import device_told

#: What tells of an accelerator without torch: NVIDIA's and AMD's drivers (to torch both are cuda), and Ascend's.
DEVICE_FILES = {"/dev/nvidia0": "cuda", "/dev/kfd": "cuda", "/dev/davinci0": "npu"}


@dataclass(frozen=True)
class TrainerSettings:
    """The settings of the trainer; every field has an environment variable, named beside it."""

    #: The settings that every service has.
    process: Settings
    #: What the agents inherit: the whole environment, from which they take their own settings.
    environ: Mapping[str, str] = field(repr=False)
    #: Where attempts run, one of ``services.trainer.backends.BACKENDS`` (``SLUICE_TRAINER_BACKEND``).
    backend: str = "local"
    #: Attempts that run at the same time (``SLUICE_TRAINER_MAX_JOBS``).
    max_jobs: int = 1
    #: An attempt that has not reported for so many seconds is lost (``SLUICE_TRAINER_HEARTBEAT_S``).
    heartbeat_s: float = 30.0
    #: A job that waits longer, queued or paused, expires (``SLUICE_TRAINER_WAITING_LIMIT_S``); 7 days.
    waiting_limit_s: float = 604_800.0
    #: Threads of a recipe, its OMP_NUM_THREADS (``SLUICE_TRAINER_THREADS``); 0 means all cores, shared by the jobs.
    threads: int = 0
    #: What recipes compute on, as torch names it: cpu, cuda, xpu, npu or mps (``SLUICE_DEVICE_TYPE``, else
    #: ``DEVICE_TYPE``; a maker's name, such as ASCEND, means the same). Without it, what the device files of this host
    #: tell; with Ray, cuda where it reserves GPUs. What a job asks for that cannot be done on it is refused when the
    #: job is submitted.
    device: str = "cpu"

    #: Where a Ray cluster takes jobs, its dashboard (``SLUICE_RAY_ADDRESS``).
    ray_address: str = "http://127.0.0.1:8265"
    #: CPUs and GPUs that Ray reserves for an attempt (``SLUICE_RAY_CPUS``, ``SLUICE_RAY_GPUS``).
    ray_cpus: float = 1.0
    ray_gpus: float = 0.0

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> TrainerSettings:
        """Reads the environment; raises ValueError naming the variable that is wrong and what it should be."""
        return cls(
            process=Settings.from_env("trainer", environ),
            environ=environ,
            backend=environ.get("SLUICE_TRAINER_BACKEND") or cls.backend,
            max_jobs=int(_number(environ, "SLUICE_TRAINER_MAX_JOBS", cls.max_jobs, least=1, whole=True)),
            heartbeat_s=_number(environ, "SLUICE_TRAINER_HEARTBEAT_S", cls.heartbeat_s, least=1),
            waiting_limit_s=_number(environ, "SLUICE_TRAINER_WAITING_LIMIT_S", cls.waiting_limit_s, least=1),
            threads=int(_number(environ, "SLUICE_TRAINER_THREADS", cls.threads, least=0, whole=True)),
            device=_device(environ),
            ray_address=_url(environ, "SLUICE_RAY_ADDRESS", cls.ray_address),
            ray_cpus=_number(environ, "SLUICE_RAY_CPUS", cls.ray_cpus, least=0),
            ray_gpus=_number(environ, "SLUICE_RAY_GPUS", cls.ray_gpus, least=0),
        )

    @property
    def recipe_threads(self) -> int:
        """Threads of one recipe."""
        return self.threads or max(1, (os.cpu_count() or 1) // self.max_jobs)

    @property
    def devices(self) -> int:
        """How many of its kind a job may have: processors, GPUs of this host, or what Ray reserves; 0 where unknown."""
        if self.backend == "ray":
            return int(self.ray_gpus if self.device == "cuda" else self.ray_cpus) or 1
        if self.device == "cpu":
            return max(1, (os.cpu_count() or 1) // self.max_jobs)
        return len(list(Path("/dev").glob("nvidia[0-9]*"))) if self.device == "cuda" else 0


def _device(environ: Mapping[str, str]) -> str:
    if told := device_told(environ):
        return told
    if environ.get("SLUICE_TRAINER_BACKEND") == "ray":
        return "cuda" if _number(environ, "SLUICE_RAY_GPUS", 0.0, least=0) else "cpu"
    found = (device for path, device in DEVICE_FILES.items() if Path(path).exists())
    return next(found, "mps" if (platform.system(), platform.machine()) == ("Darwin", "arm64") else "cpu")


def _number(environ: Mapping[str, str], variable: str, default: float, *, least: float, whole: bool = False) -> float:
    text = environ.get(variable) or str(default)
    try:
        value = float(int(text)) if whole else float(text)
    except ValueError:
        value = -1.0
    if not least <= value < float("inf"):
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{variable} is `{text}`; it takes {kind} from {least:g}")
    return value


def _url(environ: Mapping[str, str], variable: str, default: str) -> str:
    text = environ.get(variable) or default
    if not text.startswith(("http://", "https://")):
        raise ValueError(f"{variable} is `{text}`; it takes the URL of Ray's dashboard, such as {default}")
    return text.rstrip("/")
