"""The composition root of the control process: builds what it needs and passes it on by value."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from pathlib import Path

import grpc

from kit.rpc import contract
from kit.rpc.client import connect
from kit.rpc.proxy import PassThrough
from kit.rpc.server import Server
from kit.serve import Application, process, serving, storage
from kit.settings import SERVICES, Settings
from services.gateway.approvals import Approvals
from services.gateway.event_logs import EventLogs
from services.gateway.events import HANDLERS
from services.gateway.figures import Figures
from services.gateway.loader import Loader
from services.gateway.rollout_servicer import RolloutServicer
from services.gateway.servicer import CandidateRouteServicer, DeploymentServicer, EndpointServicer
from services.gateway.settings import GatewaySettings
from services.gateway.supervisor import Supervisor
from services.gateway.tables import RouteTables
from services.gateway.workers import RouteServicer, Workers
from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry

#: The services whose rpcs are passed through, undecoded.
BEHIND = tuple(name for name in SERVICES if name != "gateway")


@asynccontextmanager
async def application(settings: GatewaySettings) -> AsyncIterator[Server]:
    """The running control process. Raises ValueError or Fault when it cannot start."""
    timing = settings.timing
    async with (
        process(settings.process) as runtime,
        storage(settings.process, Path(__file__).parent) as database,
        channels(settings.process) as behind,
    ):
        approvals = Approvals(registry.ModelVersionServiceStub(runtime.channel("registry")))
        tables, workers, figures = RouteTables(database), Workers(), Figures()
        host = gateway.EngineHostServiceStub(runtime.channel("engine-host"))
        loader = Loader(database, host, approvals, tables, timing)
        supervisor = Supervisor(database, approvals, loader, figures, timing)

        def leads() -> bool:
            return supervisor.leads

        servicers = [
            (gateway.add_EndpointServiceServicer_to_server, EndpointServicer(database)),
            (gateway.add_DeploymentServiceServicer_to_server, DeploymentServicer(database)),
            (
                gateway.add_CandidateRouteServiceServicer_to_server,
                CandidateRouteServicer(database, approvals, timing.lease_s),
            ),
            (
                gateway.add_RolloutServiceServicer_to_server,
                RolloutServicer(database, approvals, workers, timing.confirm_s, leads),
            ),
            (gateway.add_RouteServiceServicer_to_server, RouteServicer(tables, workers, figures, leads)),
        ]
        parts = Application(
            servicers,
            handlers=HANDLERS,
            loops=[supervisor.run, tables.run],
            generic_handlers=[PassThrough(behind)],
            reflected=reflected(),
            event_log=lambda own: EventLogs(own, behind),
        )
        async with serving(runtime, database, parts) as server:
            yield server


@asynccontextmanager
async def channels(settings: Settings) -> AsyncIterator[dict[str, grpc.aio.Channel]]:
    """Channels to the services behind, without credentials: those of the caller go along."""
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(connect(settings.address(name), retries=False)) for name in BEHIND}


def reflected() -> list[str]:
    """All services of the suite; their descriptors are read so that reflection can show them."""
    for name in BEHIND:
        import_module(f"sluice.{name}.v1")
    return [name for name in contract.service_names() if name != "sluice.gateway.v1.EngineHostService"]
