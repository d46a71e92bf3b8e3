"""Where attempts run: the one map of backends. A backend starts and stops agents and knows no task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from services.trainer.backends.contract import Backend
from services.trainer.settings import TrainerSettings


def _local(settings: TrainerSettings, jobs: Path) -> Backend:
    from services.trainer.backends.local import LocalBackend

    return LocalBackend(jobs, _environ(settings))


def _ray(settings: TrainerSettings, jobs: Path) -> Backend:
    from services.trainer.backends.ray import RayBackend

    address, cpus, gpus = settings.ray_address, settings.ray_cpus, settings.ray_gpus
    return RayBackend(jobs, _environ(settings), address, cpus=cpus, gpus=gpus)


def _environ(settings: TrainerSettings) -> dict[str, str]:
    return {**settings.environ, "OMP_NUM_THREADS": str(settings.recipe_threads)}


OpenBackend = Callable[[TrainerSettings, Path], Backend]
BACKENDS: dict[str, OpenBackend] = {"local": _local, "ray": _ray}


def open_backend(settings: TrainerSettings, jobs: Path, backends: Mapping[str, OpenBackend] = BACKENDS) -> Backend:
    """The backend that the settings name. Raises ValueError for one that does not exist."""
    if settings.backend not in backends:
        known = ", ".join(sorted(backends))
        raise ValueError(f"SLUICE_TRAINER_BACKEND is `{settings.backend}`; it takes one of {known}")
    return backends[settings.backend](settings, jobs)
