"""Where attempts run: the one map of backends. A backend starts and stops agents and knows no task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from services.trainer.backends.contract import Backend
from services.trainer.settings import TrainerSettings


def _local(settings: TrainerSettings, jobs: Path) -> Backend:
    from services.trainer.backends.local import LocalBackend

    return LocalBackend(jobs, {**settings.environ, "OMP_NUM_THREADS": str(settings.recipe_threads)})


def _ray(settings: TrainerSettings, jobs: Path) -> Backend:
    from services.trainer.backends.ray import RayBackend

    environ = {**settings.environ, "OMP_NUM_THREADS": str(settings.recipe_threads)}
    return RayBackend(jobs, environ, settings.ray_address, cpus=settings.ray_cpus, gpus=settings.ray_gpus)


OpenBackend = Callable[[TrainerSettings, Path], Backend]
BACKENDS: dict[str, OpenBackend] = {"local": _local, "ray": _ray}


def open_backend(settings: TrainerSettings, jobs: Path, backends: Mapping[str, OpenBackend] = BACKENDS) -> Backend:
    """The backend that the settings name. Raises ValueError for one that does not exist."""
    if settings.backend not in backends:
        known = ", ".join(sorted(backends))
        raise ValueError(f"SLUICE_TRAINER_BACKEND is `{settings.backend}`; it takes one of {known}")
    return backends[settings.backend](settings, jobs)
