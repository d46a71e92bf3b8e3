"""The trainer as a process, whose agents run the fake recipe: all else is what production runs."""

import sys
from functools import partial
from pathlib import Path

from kit.serve import run
from services.trainer.app import application
from services.trainer.backends.contract import Backend
from services.trainer.backends.local import LocalBackend
from services.trainer.backends.ray import RayBackend
from services.trainer.settings import TrainerSettings

AGENT = (sys.executable, "-m", "tests.fakes.pipeline_agent")
ROOT = Path(__file__).resolve().parents[2]


def local(settings: TrainerSettings, jobs: Path) -> Backend:
    """Agents of this machine, with the fake recipe."""
    return LocalBackend(jobs, {**settings.environ, "OMP_NUM_THREADS": "1"}, AGENT)


def ray(settings: TrainerSettings, jobs: Path) -> Backend:
    """Agents of a real Ray cluster, with the fake recipe."""
    command = ("env", f"PYTHONPATH={ROOT}", *AGENT)
    return RayBackend(jobs, settings.environ, settings.ray_address, cpus=settings.ray_cpus, command=command)


def main() -> None:
    """Serves until SIGTERM."""
    run(TrainerSettings.from_env, partial(application, backends={"local": local, "ray": ray}))


if __name__ == "__main__":
    main()
