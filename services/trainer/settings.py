"""What the trainer is told by its environment beyond what every process is; read once and passed on by value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from kit.settings import Settings


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
        )

    @property
    def recipe_threads(self) -> int:
        """Threads of one recipe."""
        return self.threads or max(1, (os.cpu_count() or 1) // self.max_jobs)


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
