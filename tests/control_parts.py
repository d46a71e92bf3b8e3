"""What the tests of the gateway's control process share: a registry and an engine host that do as they are told, a
worker that confirms tables, and the control process between them, over real gRPC and a real database.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
from sqlmodel import SQLModel

from kit.auth.principal import ALL_PROJECTS, Principal
from kit.rpc.client import connect
from kit.rpc.errors import Fault, NotFound
from kit.rpc.interceptors import interceptors
from kit.rpc.server import Server, serve
from kit.store import Database
from services.gateway import commands, store
from services.gateway.approvals import Approvals
from services.gateway.figures import Figures
from services.gateway.loader import Loader
from services.gateway.rollout_servicer import RolloutServicer
from services.gateway.servicer import CandidateRouteServicer, DeploymentServicer, EndpointServicer
from services.gateway.settings import Timing
from services.gateway.supervisor import Supervisor
from services.gateway.tables import RouteTables
from services.gateway.workers import RouteServicer, Workers
from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry
from sluice.types import v1 as types

PROJECT = "projects/default"
ENDPOINT = f"{PROJECT}/endpoints/m"
QUICK = Timing(
    grace_s=0.2, keep_s=60.0, load_limit_s=5.0, lease_s=30.0, host_poll_s=0.05, recheck_s=0.1, backoff_s=0.02
)


def version(number: int, model: str = "m") -> str:
    """The name of a version."""
    return f"{PROJECT}/models/{model}/versions/{number}"


def digest(number: int) -> str:
    """The digest of its weights."""
    return f"sha256:{number:064x}"


def plan(*weights: int, hold_s: float = 0.0, min_requests: int = 20) -> gateway.RolloutPlan:
    """A plan with these steps."""
    made = gateway.RolloutPlan()
    for weight in weights:
        step = made.steps.add(weight_percent=weight, min_requests=min_requests)
        step.hold.FromNanoseconds(int(hold_s * 1e9))
    return made


class Registry(registry.ModelVersionServiceServicer):
    """Versions as a test wants them; counts how often it is asked."""

    def __init__(self) -> None:
        self.versions: dict[str, registry.ModelVersion] = {}
        self.asked = 0
        self.interface = "chat"

    def put(self, number: int, state: int = registry.MODEL_VERSION_STATE_APPROVED) -> str:
        """Makes or changes a version."""
        name = version(number)
        artifact = types.Artifact(kind=types.ARTIFACT_KIND_FULL, digest=digest(number))
        artifact.files.add(path="config.json", digest=digest(number), size_bytes=1)
        self.versions[name] = registry.ModelVersion(
            name=name, state=state, artifact=artifact, task_type="sft", interface=self.interface, endpoint="m"
        )
        return name

    async def GetModelVersion(
        self, request: registry.GetModelVersionRequest, context: Any
    ) -> registry.GetModelVersionResponse:
        self.asked += 1
        if request.name not in self.versions:
            raise NotFound(f"`{request.name}` does not exist")
        return registry.GetModelVersionResponse(model_version=self.versions[request.name])


class Host(gateway.EngineHostServiceServicer):
    """Loads whatever it is told, unless ``refusals`` has a fault for the digest."""

    def __init__(self) -> None:
        self.loaded: dict[str, gateway.LoadedModel] = {}
        self.refusals: dict[str, Fault] = {}
        self.loads: list[str] = []
        self.interfaces: set[str] = set()
        self.listed = 0

    async def LoadModel(self, request: gateway.LoadModelRequest, context: Any) -> gateway.LoadModelResponse:
        wanted = request.artifact.digest
        self.loads.append(wanted)
        self.interfaces.add(request.interface)
        if wanted in self.refusals:
            raise self.refusals[wanted]
        model = gateway.LoadedModel(digest=wanted, engine="vllm", host="here")
        model.upstream.url, model.upstream.key, model.upstream.model = "http://127.0.0.1:4711", "secret", wanted[-4:]
        self.loaded[wanted] = model
        return gateway.LoadModelResponse(loaded_model=model)

    async def UnloadModel(self, request: gateway.UnloadModelRequest, context: Any) -> gateway.UnloadModelResponse:
        self.loaded.pop(request.digest, None)
        return gateway.UnloadModelResponse()

    async def ListLoadedModels(
        self, request: gateway.ListLoadedModelsRequest, context: Any
    ) -> gateway.ListLoadedModelsResponse:
        self.listed += 1
        return gateway.ListLoadedModelsResponse(loaded_models=self.loaded.values())


@dataclass
class Worker:
    """A data-path worker as far as the control process sees one; ``obeys`` False leaves tables unconfirmed."""

    name: str
    table: gateway.RouteTable = field(default_factory=gateway.RouteTable)
    tables: list[gateway.RouteTable] = field(default_factory=list)
    obeys: bool = True
    _out: asyncio.Queue[gateway.SyncRoutesRequest] = field(default_factory=asyncio.Queue)

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Follows the control process until cancelled or cut off."""
        await self._out.put(gateway.SyncRoutesRequest(worker=self.name, revision=self.table.revision))
        stub: Any = gateway.RouteServiceStub(channel)
        with suppress(grpc.aio.AioRpcError):
            async for response in stub.SyncRoutes(self._requests()):
                self.tables.append(response.table)
                if self.obeys:
                    self.table = response.table
                    await self._say()

    async def saw(
        self, number: int, requests: int, errors: int = 0, bucket: int = 20, endpoint: str = ENDPOINT
    ) -> None:
        """Reports answers of a version, all of them in one bucket of 41."""
        counts = [0] * 41
        counts[bucket] = requests - errors
        sample = gateway.ArmSample(
            endpoint=endpoint,
            model_version=version(number),
            requests=requests,
            errors=errors,
            duration_buckets=counts,
            revision=self.table.revision,
        )
        await self._say(sample)

    def weights(self, endpoint: str = ENDPOINT) -> dict[str, int]:
        """Who serves by the table in force, by number of the version."""
        return weights_of(self.table, endpoint)

    async def _say(self, *samples: gateway.ArmSample) -> None:
        await self._out.put(gateway.SyncRoutesRequest(worker=self.name, revision=self.table.revision, samples=samples))

    async def _requests(self) -> AsyncIterator[gateway.SyncRoutesRequest]:
        while True:
            yield await self._out.get()


def weights_of(table: gateway.RouteTable, endpoint: str = ENDPOINT) -> dict[str, int]:
    """The weights in a table, by number of the version."""
    routes = [route for route in table.routes if route.endpoint == endpoint]
    arms = routes[0].arms if routes else []
    return {each.arm.model_version.rsplit("/", 1)[1]: each.arm.weight_percent for each in arms}


@dataclass
class Control:
    """The control process and what surrounds it."""

    database: Database
    registry: Registry
    host: Host
    server: Server
    channel: grpc.aio.Channel
    supervisor: Supervisor
    workers: Workers

    def stub(self, kind: Callable[[grpc.aio.Channel], Any]) -> Any:
        """A stub of one of its services."""
        return kind(self.channel)

    async def approve(self, number: int) -> str:
        """An approved version, and what the event of it does; returns the name of the rollout."""
        name = self.registry.put(number)
        await self.database.transact(lambda unit: commands.let_in(unit, name, "m"))
        async with self.database.read() as session:
            return (await store.ROLLOUTS.find(session, model_version=name))[-1].name

    async def revoke(self, number: int) -> None:
        """A revoked version, and what the event of it does."""
        name = self.registry.put(number, registry.MODEL_VERSION_STATE_REVOKED)
        await self.database.transact(lambda unit: commands.revoke_version(unit, name))

    async def rollout(self, name: str) -> gateway.Rollout:
        """A rollout as it is."""
        async with self.database.read() as session:
            return await store.ROLLOUTS.get(session, name)

    async def endpoint(self) -> gateway.Endpoint:
        """The endpoint as it is."""
        async with self.database.read() as session:
            return await store.ENDPOINTS.get(session, ENDPOINT)

    async def reaches(self, name: str, *states: int) -> gateway.Rollout:
        """Waits for a rollout to be in one of these states."""

        async def there() -> bool:
            return (await self.rollout(name)).state in states

        await until(there)
        return await self.rollout(name)

    async def state_of(self, number: int) -> int:
        """The state of the newest deployment of a version; 0 where there is none."""
        async with self.database.read() as session:
            found = await store.DEPLOYMENTS.find(session, model_version=version(number))
        return found[-1].state if found else 0


async def until(condition: Callable[[], Any], timeout_s: float = 60.0) -> None:
    """Waits until a condition holds, plain or async; fails the test after ``timeout_s``."""
    async with asyncio.timeout(timeout_s):
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.01)


async def new_database() -> Database:
    """An empty database of the gateway, in memory."""
    database = await Database.open("sqlite://", service="gateway")
    await database.create_tables(SQLModel.metadata)
    return database


async def with_plan(database: Database, made: gateway.RolloutPlan) -> None:
    """Creates the endpoint with a plan of its own."""
    endpoint = gateway.Endpoint(interface="chat", rollout_plan=made)
    await database.transact(lambda unit: commands.create_endpoint(unit, PROJECT, "m", endpoint))


def _everybody(metadata: Any) -> Principal:
    return Principal("projects/default/apiKeys/op", frozenset({(ALL_PROJECTS, int(types.ROLE_ADMIN))}), "gateway")


def _anything(*_: Any) -> None:
    """Lets every call pass."""


@asynccontextmanager
async def serving(*services: Any) -> AsyncIterator[tuple[Server, grpc.aio.Channel]]:
    """A server with the suite's own interceptors, open to everybody, and a channel to it."""
    layers = interceptors(_everybody, _anything)
    async with await serve("127.0.0.1:0", services, layers) as server:
        async with connect(server.address, retries=False) as channel:
            yield server, channel


@asynccontextmanager
async def control(
    database: Database,
    versions: Registry | None = None,
    host: Host | None = None,
    timing: Timing = QUICK,
    leads: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Control]:
    """The control process on a database; leave the block and enter another to restart it."""
    versions, host = versions or Registry(), host or Host()
    async with AsyncExitStack() as stack:
        _, to_registry = await stack.enter_async_context(
            serving((registry.add_ModelVersionServiceServicer_to_server, versions))
        )
        _, to_host = await stack.enter_async_context(serving((gateway.add_EngineHostServiceServicer_to_server, host)))
        approvals = Approvals(registry.ModelVersionServiceStub(to_registry))  # type: ignore[arg-type]
        tables, workers, figures = RouteTables(database), Workers(), Figures()
        loader = Loader(database, gateway.EngineHostServiceStub(to_host), approvals, tables, timing)  # type: ignore[arg-type]
        supervisor = Supervisor(database, approvals, loader, figures, timing)
        rollouts = RolloutServicer(database, approvals, workers, timing.confirm_s, leads)
        candidates = CandidateRouteServicer(database, approvals, timing.lease_s)
        server, channel = await stack.enter_async_context(
            serving(
                (gateway.add_EndpointServiceServicer_to_server, EndpointServicer(database)),
                (gateway.add_DeploymentServiceServicer_to_server, DeploymentServicer(database)),
                (gateway.add_CandidateRouteServiceServicer_to_server, candidates),
                (gateway.add_RolloutServiceServicer_to_server, rollouts),
                (gateway.add_RouteServiceServicer_to_server, RouteServicer(tables, workers, figures, leads)),
            )
        )
        await stack.enter_async_context(running(supervisor.run(), tables.run()))
        yield Control(database, versions, host, server, channel, supervisor, workers)


@asynccontextmanager
async def running(*works: Any) -> AsyncIterator[None]:
    """Runs coroutines beside the block; one that raises fails the test."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


@asynccontextmanager
async def worker(around: Control, name: str = "w1", **options: Any) -> AsyncIterator[Worker]:
    """A connected worker that has its first table."""
    made = Worker(name, **options)
    async with connect(around.server.address, retries=False) as channel, running(made.run(channel)):
        await until(lambda: made.tables or made.table.revision)
        yield made
