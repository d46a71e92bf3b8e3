"""The composition root of the trainer: builds what it needs and passes it on by value."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from kit.blobs import FileKek, open_store
from kit.rpc.server import Server, Service
from kit.serve import Application, Runtime, process, serving, storage
from services.trainer.backends import BACKENDS, OpenBackend, open_backend
from services.trainer.events import HANDLERS
from services.trainer.inputs import Inputs
from services.trainer.planning import Planning, host_bytes
from services.trainer.servicer import AttemptServicer, TrainingJobServicer
from services.trainer.settings import TrainerSettings
from services.trainer.supervisor import Supervisor
from services.trainer.token_cache import TokenCache, digest_now
from sluice.dataset import v1 as dataset
from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer


def endpoints_of(runtime: Runtime) -> gateway.EndpointServiceAsyncStub | None:
    """Whom to ask what an endpoint serves; None where the gateway has no address: only jobs with a judge need one."""
    if "gateway" not in runtime.settings.addresses:
        return None
    return gateway.EndpointServiceStub(runtime.channel("gateway"))


@asynccontextmanager
async def application(
    settings: TrainerSettings, backends: Mapping[str, OpenBackend] = BACKENDS
) -> AsyncIterator[Server]:
    """The running service. Raises ValueError or Fault when it cannot start."""
    jobs = settings.process.home / "jobs"
    backend = open_backend(settings, jobs, backends)
    async with process(settings.process) as runtime, storage(settings.process, Path(__file__).parent) as database:
        datasets = dataset.DatasetVersionServiceStub(runtime.channel("dataset"))
        models = registry.ModelVersionServiceStub(runtime.channel("registry"))
        inputs = Inputs(
            datasets,
            models,
            registry.TaskTypeServiceStub(runtime.channel("registry")),
            registry.GatePolicyServiceStub(runtime.channel("registry")),
            settings.device,
            devices=settings.devices,
            endpoints=endpoints_of(runtime),
        )
        supervisor = Supervisor(
            database,
            backend,
            inputs.resolve,
            max_jobs=settings.max_jobs,
            heartbeat_s=settings.heartbeat_s,
            waiting_limit_s=settings.waiting_limit_s,
        )
        own = settings.process
        kek = FileKek.load(own.kek_path, home=own.home)
        blobs = open_store(own.blobs_url, kek)
        tokens = TokenCache(own.home / "cache" / "tokens", kek)
        here = host_bytes(settings.max_jobs) if settings.backend == "local" else 0
        planning = Planning(inputs.resolve_unjudged, datasets, models, blobs, settings.device, here)
        servicer = TrainingJobServicer(database, inputs.resolve, inputs.admit, jobs, planning, blobs)
        servicers: list[Service] = [
            (trainer.add_TrainingJobServiceServicer_to_server, servicer),
            (trainer.add_AttemptServiceServicer_to_server, AttemptServicer(database)),
        ]
        watch_tokens = partial(tokens.watch, partial(digest_now, datasets))
        parts = Application(servicers, handlers=HANDLERS, loops=[supervisor.run, watch_tokens])
        try:
            async with serving(runtime, database, parts) as server:
                yield server
        finally:
            await backend.close()
