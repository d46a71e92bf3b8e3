"""``python -m benchmarks.completions up``: the suite with a trainer that runs nothing and tells of made-up successes.

All that carries an event is the trainer's own: its database, outbox, relay and place on the bus.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import services.trainer
from kit.rpc.names import uuid7
from kit.rpc.server import Server
from kit.serve import Application, process, run, serving, storage
from kit.settings import Settings
from kit.store import Database
from services.suite import command
from services.suite.programs import PROGRAMS
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

ORDER = "run/completions.json"


@asynccontextmanager
async def application(settings: Settings) -> AsyncIterator[Server]:
    """The trainer without jobs."""
    package = Path(services.trainer.__file__).parent
    async with process(settings) as runtime, storage(settings, package) as database:
        parts = Application([], loops=[partial(tell, database, settings.home / ORDER)])
        async with serving(runtime, database, parts) as server:
            yield server


async def tell(database: Database, order: Path) -> None:
    """Waits for ``order`` (``count`` and ``per_s``), then commits that many successes at an even pace."""
    while not order.exists():  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(0.05)
    wanted = json.loads(order.read_text())
    clock = asyncio.get_running_loop().time
    began = clock()
    for number in range(wanted["count"]):
        await asyncio.sleep(max(0.0, began + number / wanted["per_s"] - clock()))
        job = f"projects/default/trainingJobs/{uuid7()}"
        async with database.begin() as unit:
            unit.emit(success(job), job)


def success(job: str) -> trainer.TrainingJobSucceeded:
    """What a trainer says of a small pretraining job; each job has weights of its own."""
    spec = trainer.TrainingJobSpec(
        task_type="pretrain",
        dataset_version="projects/default/datasets/made-up/versions/1",
        model="made-up",
        endpoint="made-up",
        gate_policy="baseline",
        pretrain=trainer.PretrainRecipe(),
    )
    digest = f"sha256:{job[-36:].replace('-', ''):0>64}"
    artifact = types.Artifact(kind=types.ARTIFACT_KIND_FULL, digest=digest)
    result = trainer.TrainingResult(artifact=artifact, metrics={"final_loss": 0.5})
    return trainer.TrainingJobSucceeded(training_job=job, spec=spec, result=result, creator="benchmark")


def main() -> None:
    """Serves until SIGTERM."""
    run(partial(Settings.from_env, "trainer"), application)


if __name__ == "__main__":
    command.main(modules={**PROGRAMS, "trainer": "benchmarks.completions"})
