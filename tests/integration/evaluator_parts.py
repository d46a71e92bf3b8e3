"""The evaluator's neighbors for tests: three services over real gRPC, and an OpenAI port over real HTTP."""

import asyncio
import hashlib
import json
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc

from kit.blobs import BlobStore, FileKek, open_store
from kit.rpc.errors import NotFound
from kit.rpc.interceptors.faults import Faults
from kit.store import Database, migrate
from services.evaluator.asking import Engine
from services.evaluator.peers import Peers
from services.evaluator.routes import Routes
from services.evaluator.runner import Runner
from services.evaluator.supervisor import EvaluationSupervisor
from sluice.dataset import v1 as dataset
from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry

MIGRATIONS = Path(__file__).parents[2] / "services" / "evaluator" / "migrations" / "versions"

PROJECT = "projects/default"
DATA = f"{PROJECT}/datasets/d/versions/1"


def model(number: int) -> str:
    return f"{PROJECT}/models/m/versions/{number}"


def conversation(number: int) -> dict[str, Any]:
    asked = {"role": "user", "content": f"question {number}"}
    return {"messages": [asked, {"role": "assistant", "content": f"answer {number}"}]}


@dataclass
class World:
    """What the neighbors say, and what they were asked."""

    rows: list[dict[str, Any]] = field(default_factory=lambda: [conversation(i) for i in range(40)])
    split: str = "test"
    task_type: str = "sft"
    interface: str = ""
    config: str = ""
    metrics: list[str] = field(default_factory=lambda: ["exact_match", "rouge_l", "bleu_4"])
    gate: list[str] = field(default_factory=list)
    max_rows: int = 0
    parity: str = ""
    own_data: bool = True
    stable: str = ""
    loads_in: int = 1
    broken: dict[str, str] = field(default_factory=dict)
    routes: dict[str, str] = field(default_factory=dict)
    looks: Counter[str] = field(default_factory=Counter)
    released: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    address: str = ""


class Models(registry.ModelVersionServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    async def GetModelVersion(self, request: Any, context: Any) -> Any:
        version = registry.ModelVersion(name=request.name, task_type=self.world.task_type, endpoint="m")
        version.lineage.dataset_version = DATA if self.world.own_data else ""
        version.interface, version.gate_policy = self.world.interface, "gate"
        if self.world.config:
            version.artifact.files.add(path="config.json", digest=self.world.config)
        if self.world.parity:
            version.parity.digest = self.world.parity
        return registry.GetModelVersionResponse(model_version=version)


class TaskTypes(registry.TaskTypeServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    async def GetTaskType(self, request: Any, context: Any) -> Any:
        found = registry.TaskType(
            name=request.name, row_schema=request.name.rsplit("/", 1)[1], metrics=self.world.metrics
        )
        found.suite_max_rows, found.suite_max_tokens = self.world.max_rows, 16
        return registry.GetTaskTypeResponse(task_type=found)


class Policies(registry.GatePolicyServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    async def GetGatePolicy(self, request: Any, context: Any) -> Any:
        assert request.name == f"{PROJECT}/gatePolicies/gate"
        found = registry.GatePolicy(criteria=[registry.Criterion(metric=name) for name in self.world.gate])
        return registry.GetGatePolicyResponse(gate_policy=found)


class Datasets(dataset.DatasetVersionServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def content(self) -> bytes:
        return b"".join(json.dumps(row).encode() + b"\n" for row in self.world.rows)

    async def GetDatasetVersion(self, request: Any, context: Any) -> Any:
        if request.on_behalf_of in self.world.strangers:
            raise NotFound("there is none", resource=("Dataset", request.name))
        digest = f"sha256:{hashlib.sha256(self.content()).hexdigest()}"
        version = dataset.DatasetVersion(name=request.name, task_type=self.world.task_type, digest=digest)
        version.split_rows[self.world.split] = len(self.world.rows)
        return dataset.GetDatasetVersionResponse(dataset_version=version)

    async def ReadDatasetVersion(self, request: Any, context: Any) -> AsyncIterator[Any]:
        assert request.split == self.world.split
        yield dataset.ReadDatasetVersionResponse(rows=self.content())


class Endpoints(gateway.EndpointServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    async def GetEndpoint(self, request: Any, context: Any) -> Any:
        if not self.world.stable:
            raise NotFound("there is none", resource=("Endpoint", request.name))
        arm = gateway.Arm(model_version=self.world.stable, role=gateway.ARM_ROLE_STABLE, weight_percent=100)
        return gateway.GetEndpointResponse(endpoint=gateway.Endpoint(name=request.name, route=[arm]))


class CandidateRoutes(gateway.CandidateRouteServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def route(self, name: str) -> gateway.CandidateRoute:
        version = self.world.routes[name]
        route = gateway.CandidateRoute(name=name, model_version=version, model=f"candidate-{version[-1]}")
        loading = self.world.looks[name] < self.world.loads_in
        route.state = gateway.CANDIDATE_ROUTE_STATE_LOADING if loading else gateway.CANDIDATE_ROUTE_STATE_READY
        if version in self.world.broken:
            route.state = gateway.CANDIDATE_ROUTE_STATE_FAILED
            route.failure.message, route.failure.reason = self.world.broken[version], 24
        return route

    async def CreateCandidateRoute(self, request: Any, context: Any) -> Any:
        name = f"{PROJECT}/candidateRoutes/r{request.model_version[-1]}"
        self.world.routes[name] = request.model_version
        return gateway.CreateCandidateRouteResponse(candidate_route=self.route(name))

    async def GetCandidateRoute(self, request: Any, context: Any) -> Any:
        if request.name not in self.world.routes:
            raise NotFound("no such route", resource=("CandidateRoute", request.name))
        self.world.looks[request.name] += 1
        return gateway.GetCandidateRouteResponse(candidate_route=self.route(request.name))

    async def ReleaseCandidateRoute(self, request: Any, context: Any) -> Any:
        self.world.released.append(self.world.routes.pop(request.name, ""))
        return gateway.ReleaseCandidateRouteResponse()


@asynccontextmanager
async def neighbors(world: World) -> AsyncIterator[grpc.aio.Channel]:
    """A server with all of them, and a channel to it."""
    server = grpc.aio.server(interceptors=[Faults()])
    registry.add_ModelVersionServiceServicer_to_server(Models(world), server)
    registry.add_TaskTypeServiceServicer_to_server(TaskTypes(world), server)
    registry.add_GatePolicyServiceServicer_to_server(Policies(world), server)
    dataset.add_DatasetVersionServiceServicer_to_server(Datasets(world), server)
    gateway.add_EndpointServiceServicer_to_server(Endpoints(world), server)
    gateway.add_CandidateRouteServiceServicer_to_server(CandidateRoutes(world), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    world.address = f"127.0.0.1:{port}"
    try:
        async with grpc.aio.insecure_channel(world.address) as channel:
            yield channel
    finally:
        await server.stop(None)


Reply = Callable[[str, dict[str, Any]], tuple[int, dict[str, Any]]]


class OpenAiPort(ThreadingHTTPServer):
    """Answers POSTs by ``reply(path, body)``; ``bodies`` is what was asked."""

    daemon_threads = True

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.bodies: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def asked(self, name: str = "") -> list[str]:
        """The questions that were put to a model, or to all."""
        return [b["messages"][-1]["content"] for b in self.bodies if "messages" in b and name in b["model"]]

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: OpenAiPort

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert self.headers["authorization"] == "Bearer a-token"
        self.server.bodies.append(body)
        status, answer = self.server.reply(self.path, body)
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def said(text: str) -> tuple[int, dict[str, Any]]:
    """A chat completion."""
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}


def right(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Knows every answer."""
    return said(body["messages"][-1]["content"].replace("question", "answer"))


def peers_of(channel: grpc.aio.Channel) -> Peers:
    """The neighbors behind a channel, as the evaluator sees them."""
    return Peers(
        registry.ModelVersionServiceStub(channel),
        registry.TaskTypeServiceStub(channel),
        dataset.DatasetVersionServiceStub(channel),
        gateway.EndpointServiceStub(channel),
        dataset.AssetServiceStub(channel),
        registry.GatePolicyServiceStub(channel),
    )


@asynccontextmanager
async def evaluating(
    database: Database, blobs: BlobStore, channel: grpc.aio.Channel, address: str, **options: Any
) -> AsyncIterator[None]:
    """One life of an evaluator without its ports; ``address`` is where it asks its questions."""
    routes = Routes(gateway.CandidateRouteServiceStub(channel), timeout_s=5, poll_s=0.01, keep_s=0.02)
    peers = peers_of(channel)
    async with Engine(address, lambda: "a-token", timeout_s=5, connections=4, backoff_s=0.005) as engine:
        runner = Runner(database, blobs, peers, routes, engine, row_concurrency=4, parity_tolerance=0.01)
        limits: Any = {"concurrency": 1, "time_limit_s": 60, "waiting_limit_s": 60, "again_s": 0.02} | options
        task = asyncio.create_task(EvaluationSupervisor(database, blobs, peers, runner, **limits).run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def open_stores(folder: Path) -> tuple[Database, BlobStore]:
    """The stores of an evaluator that lives in a folder."""
    database = await Database.open(f"sqlite:///{folder / 'evaluator.db'}", service="evaluator")
    await migrate(database, MIGRATIONS)
    return database, open_store(f"file://{folder / 'blobs'}", FileKek(b"k" * 32))


async def main(folder: str, neighbors_address: str, engine_address: str) -> None:
    """An evaluator in a process of its own, until it is killed."""
    database, blobs = await open_stores(Path(folder))
    async with grpc.aio.insecure_channel(neighbors_address) as channel:
        async with evaluating(database, blobs, channel, engine_address):
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
