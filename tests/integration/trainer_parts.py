"""A trainer with real agents and a fake recipe, and the two services it asks; as a script it runs the trainer alone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import grpc
import psutil

import services.trainer
from kit.auth import AccessSnapshot, Authenticator, Identity, Verifier, authorize
from kit.blobs import BlobStore, FileKek, open_store, store_artifact
from kit.rpc.client import connect
from kit.rpc.errors import NotFound
from kit.rpc.interceptors import interceptors
from kit.rpc.server import serve
from kit.settings import Settings
from kit.store import Database, migrate
from services.trainer import store
from services.trainer.backends.local import LocalBackend
from services.trainer.inputs import Inputs
from services.trainer.planning import Planning
from services.trainer.servicer import AttemptServicer, TrainingJobServicer
from services.trainer.supervisor import Supervisor
from sluice.dataset import v1 as dataset
from sluice.lifecycle import JOB, is_over
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

AGENT = (sys.executable, "-m", "tests.fakes.trainer_agent")
DATASET = "projects/p/datasets/d/versions"
BASE = "projects/p/models/base/versions"
ROWS = {"train": b'{"text":"secret row"}\n{"text":"b"}\n', "validation": b'{"text":"c"}\n'}
S = {name.removeprefix("JOB_STATE_"): number for name, number in types.JobState.items()}


class Datasets(dataset.DatasetVersionServiceServicer):
    """One version, number 3, which is the latest; nobody gets rows while ``open`` is not set."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.version = dataset.DatasetVersion(
            name=f"{DATASET}/3",
            task_type="sft",
            digest="sha256:" + "3" * 64,
            split_rows={split: rows.count(b"\n") for split, rows in ROWS.items()},
        )

    async def GetDatasetVersion(self, request: dataset.GetDatasetVersionRequest, context: object) -> object:
        if request.name not in (f"{DATASET}/3", f"{DATASET}/latest"):
            raise NotFound(f"dataset version `{request.name}` does not exist")
        return dataset.GetDatasetVersionResponse(dataset_version=self.version)

    async def ReadDatasetVersion(
        self, request: dataset.ReadDatasetVersionRequest, context: object
    ) -> AsyncIterator[dataset.ReadDatasetVersionResponse]:
        await self.open.wait()
        for line in ROWS[request.split].splitlines(keepends=True):
            yield dataset.ReadDatasetVersionResponse(rows=line)


class Models(registry.ModelVersionServiceServicer):
    """Version 1 is complete, version 2 an adapter."""

    def __init__(self, artifact: types.Artifact) -> None:
        self.artifact = artifact

    async def GetModelVersion(self, request: registry.GetModelVersionRequest, context: object) -> object:
        number = {"1": 1, "stable": 1, "2": 2}[request.name.rsplit("/", 1)[1]]
        version = registry.ModelVersion(name=f"{BASE}/{number}", version=number, artifact=self.artifact)
        if number == 2:
            version.artifact.kind = types.ARTIFACT_KIND_ADAPTER
        return registry.GetModelVersionResponse(model_version=version)


class TaskTypes(registry.TaskTypeServiceServicer):
    """`sft` and `pretrain`."""

    async def GetTaskType(self, request: registry.GetTaskTypeRequest, context: object) -> object:
        name = request.name.removeprefix("projects/p/taskTypes/")
        if name not in ("sft", "pretrain"):
            raise NotFound(f"task type `{name}` does not exist")
        return registry.GetTaskTypeResponse(task_type=registry.TaskType(recipe=name, gate_policy="gate"))


class Policies(registry.GatePolicyServiceServicer):
    """`strict`, and `gate` of the task types."""

    async def GetGatePolicy(self, request: registry.GetGatePolicyRequest, context: object) -> object:
        if request.name not in ("projects/p/gatePolicies/strict", "projects/p/gatePolicies/gate"):
            raise NotFound(f"gate policy `{request.name}` does not exist")
        return registry.GetGatePolicyResponse()


def authenticator(settings: Settings, service: str, enabled: bool) -> Authenticator:
    return Authenticator(AccessSnapshot(), Verifier(settings.identity_folder), service=service, enabled=enabled)


@dataclass
class Trainer:
    """A trainer that runs in this process; ``skipped_s`` moves its monotonic clock on."""

    settings: Settings
    database: Database
    backend: LocalBackend
    jobs: trainer.TrainingJobServiceAsyncStub
    skipped_s: float = 0.0

    async def create(self, *, steps: int = 8, **spec: object) -> str:
        optimization = trainer.Optimization(max_steps=steps)
        wanted = trainer.TrainingJobSpec(
            task_type="sft",
            dataset_version=f"{DATASET}/latest",
            base_model_version=f"{BASE}/stable",
            model="m",
            optimization=optimization,
        )
        wanted.MergeFrom(trainer.TrainingJobSpec(**spec))
        job = trainer.TrainingJob(spec=wanted)
        answer = await self.jobs.CreateTrainingJob(
            trainer.CreateTrainingJobRequest(parent="projects/p", training_job=job)
        )
        return answer.training_job.name

    async def until(self, name: str, met: Callable[[trainer.TrainingJob], bool]) -> trainer.TrainingJob:
        """The first snapshot of the job that meets the condition; fails when the job is over without it."""
        job = trainer.TrainingJob()
        watching = self.jobs.WatchTrainingJob(trainer.WatchTrainingJobRequest(name=name), timeout=30)
        try:
            async for snapshot in watching:
                job = snapshot.training_job
                if met(job):
                    return job
        finally:
            watching.cancel()
        raise AssertionError(f"the job ended otherwise: {job}")

    async def end_of(self, name: str) -> trainer.TrainingJob:
        return await self.until(name, lambda job: is_over(JOB, job.state))

    async def at_step(self, name: str, step: int, epoch: int = 1) -> trainer.TrainingJob:
        return await self.until(name, lambda job: job.progress.done >= step and len(job.attempts) == epoch)

    async def cleared(self, name: str) -> None:
        """Returns when nothing is left of the job's attempts for the trainer to clear away."""
        while True:
            seen = self.database.changed.count
            async with self.database.read() as session:
                busy = await store.busy_placements(session, self.database.clock() - timedelta(days=1))
                if name not in {placement.job for placement, _ in busy}:
                    return
            await self.database.changed.wait(seen, 0.2)


@dataclass
class World:
    """A home with everything that agents need, and the peers."""

    environ: dict[str, str]
    settings: Settings
    blobs: BlobStore
    datasets: Datasets
    peers: dict[str, grpc.aio.Server] = field(default_factory=dict)

    def folder(self, name: str) -> Path:
        return self.settings.home / "jobs" / name.rsplit("/", 1)[1]

    def processes(self, name: str) -> dict[str, psutil.Process]:
        """The live processes of a job: `agent` and `recipe`."""
        found = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                mark = process.environ().get("SLUICE_ATTEMPT", "")
                if mark.startswith(name.rsplit("/", 1)[1]) and process.status() != psutil.STATUS_ZOMBIE:
                    found["recipe" if "recipe.py" in " ".join(process.cmdline()) else "agent"] = process
        return found

    def kill(self) -> None:
        """Ends every process that a test left behind."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("SLUICE_HOME") == str(self.settings.home) and process.pid != os.getpid():
                    process.kill()


@asynccontextmanager
async def world(folder: Path, free_ports: Sequence[int]) -> AsyncIterator[World]:
    home = folder / "home"
    names = ("trainer", "dataset", "registry")
    environ = {
        **{key: value for key, value in os.environ.items() if not key.startswith("SLUICE_")},
        "SLUICE_HOME": str(home),
        "SLUICE_KEK": str(folder / "kek"),
        "SLUICE_NATS_PASSWORD": "never shown to a recipe",
        "OMP_NUM_THREADS": "1",
        **{f"SLUICE_{n.upper()}_ADDRESS": f"127.0.0.1:{p}" for n, p in zip(names, free_ports, strict=True)},
    }
    settings = Settings.from_env("trainer", environ)
    for name in names:
        Identity.create(settings.identity_folder, name)
    blobs = open_store(settings.blobs_url, FileKek.create(settings.kek_path, home=home))
    base = folder / "base"
    base.mkdir()
    (base / "model.safetensors").write_bytes(b"base weights")
    artifact = await store_artifact(blobs, "projects/p", base, types.ARTIFACT_KIND_FULL)
    made = World(environ, settings, blobs, Datasets())
    parts = {
        "dataset": [(dataset.add_DatasetVersionServiceServicer_to_server, made.datasets)],
        "registry": [
            (registry.add_ModelVersionServiceServicer_to_server, Models(artifact)),
            (registry.add_TaskTypeServiceServicer_to_server, TaskTypes()),
            (registry.add_GatePolicyServiceServicer_to_server, Policies()),
        ],
    }
    async with AsyncExitStack() as stack:
        for name, servicers in parts.items():
            list_ = interceptors(authenticator(settings, name, enabled=True), authorize)
            await stack.enter_async_context(await serve(settings.address(name), servicers, list_))
        try:
            yield made
        finally:
            made.kill()


@asynccontextmanager
async def running(environ: dict[str, str], command: Sequence[str] = AGENT) -> AsyncIterator[Trainer]:
    """A trainer on the home's database; leaving the block stops it and nothing else."""
    settings = Settings.from_env("trainer", environ)
    database = await Database.open(settings.database_url, service="trainer")
    await migrate(database, Path(services.trainer.__file__).parent / "migrations" / "versions")
    identity = Identity.load(settings.identity_folder / "trainer.key")
    jobs = settings.home / "jobs"
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)

        async def channel(peer: str) -> grpc.aio.Channel:
            return await stack.enter_async_context(connect(settings.address(peer), token=lambda: identity.token(peer)))

        datasets = dataset.DatasetVersionServiceStub(await channel("dataset"))
        models = registry.ModelVersionServiceStub(await channel("registry"))
        inputs = Inputs(
            datasets,
            models,
            registry.TaskTypeServiceStub(await channel("registry")),
            registry.GatePolicyServiceStub(await channel("registry")),
        )
        client = await stack.enter_async_context(connect(settings.address("trainer")))
        backend = LocalBackend(jobs, environ, command)
        made = Trainer(settings, database, backend, trainer.TrainingJobServiceStub(client))
        supervisor = Supervisor(
            database,
            backend,
            inputs.resolve,
            max_jobs=1,
            heartbeat_s=30,
            waiting_limit_s=3600,
            monotonic=lambda: time.monotonic() + made.skipped_s,
        )
        blobs = open_store(settings.blobs_url, FileKek.load(settings.kek_path, home=settings.home))
        planning = Planning(inputs.resolve_unjudged, datasets, models, blobs)
        servicer = TrainingJobServicer(database, inputs.resolve, inputs.admit, jobs, planning, blobs)
        servicers = [
            (trainer.add_TrainingJobServiceServicer_to_server, servicer),
            (trainer.add_AttemptServiceServicer_to_server, AttemptServicer(database)),
        ]
        list_ = interceptors(authenticator(settings, "trainer", enabled=False), authorize)
        await stack.enter_async_context(await serve(settings.address("trainer"), servicers, list_))
        loop = asyncio.create_task(supervisor.run())
        try:
            yield made
        finally:
            assert not loop.done() or loop.exception() is None, loop.exception()
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)


async def _alone() -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with running(dict(os.environ)):
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(_alone())
