"""The composition root of the evaluator: builds what it needs and passes it on by value."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from kit.blobs import FileKek, open_store
from kit.rpc.server import Server
from kit.serve import Application, process, serving, storage
from services.evaluator.asking import Engine
from services.evaluator.events import HANDLERS
from services.evaluator.peers import Peers
from services.evaluator.routes import Routes
from services.evaluator.runner import Runner
from services.evaluator.servicer import EvaluationServicer
from services.evaluator.settings import EvaluatorSettings
from services.evaluator.supervisor import EvaluationSupervisor
from sluice.dataset import v1 as dataset
from sluice.evaluator import v1 as evaluator
from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry


@asynccontextmanager
async def application(settings: EvaluatorSettings) -> AsyncIterator[Server]:
    """The running service. Raises ValueError or Fault when it cannot start."""
    own = settings.process
    async with process(own) as runtime, storage(own, Path(__file__).parent) as database, AsyncExitStack() as stack:
        engine = Engine(
            own.address("http"),
            lambda: runtime.identity.token("gateway"),
            timeout_s=settings.request_timeout_s,
            connections=settings.concurrency * settings.row_concurrency,
        )
        await stack.enter_async_context(engine)
        blobs = open_store(own.blobs_url, FileKek.load(own.kek_path, home=own.home))
        peers = Peers(
            registry.ModelVersionServiceStub(runtime.channel("registry")),
            registry.TaskTypeServiceStub(runtime.channel("registry")),
            dataset.DatasetVersionServiceStub(runtime.channel("dataset")),
            gateway.EndpointServiceStub(runtime.channel("gateway")),
            dataset.AssetServiceStub(runtime.channel("dataset")),
            registry.GatePolicyServiceStub(runtime.channel("registry")),
        )
        routes = Routes(
            gateway.CandidateRouteServiceStub(runtime.channel("gateway")), timeout_s=settings.prepare_timeout_s
        )
        runner = Runner(
            database,
            blobs,
            peers,
            routes,
            engine,
            row_concurrency=settings.row_concurrency,
            parity_tolerance=settings.parity_tolerance,
        )
        supervisor = EvaluationSupervisor(
            database,
            blobs,
            peers,
            runner,
            concurrency=settings.concurrency,
            time_limit_s=settings.time_limit_s,
            waiting_limit_s=settings.waiting_limit_s,
        )
        servicers = [(evaluator.add_EvaluationServiceServicer_to_server, EvaluationServicer(database, blobs, peers))]
        parts = Application(servicers, handlers=HANDLERS, loops=[supervisor.run])
        async with serving(runtime, database, parts) as server:
            yield server
