"""A data-path worker as a process, between a scripted registry, a scripted control process and an engine."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from kit.auth import AccessSnapshot, Authenticator, Identity, Verifier, authorize, digest
from kit.rpc.interceptors import interceptors
from kit.rpc.ports import free_port
from kit.rpc.server import Server, Service, serve
from kit.settings import Settings
from kit.telemetry.trace_files import read_traces
from services.gateway.engines.process import EngineProcess
from services.gateway.engines.protocol import Launch
from sluice.events import v1 as events
from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry
from sluice.types import v1 as types
from tests.fakes.engine import FakeEngine, write_model
from tests.gateway_parts import prepared, process

PROJECT = "projects/default"
ENDPOINT = f"{PROJECT}/endpoints/assistant"
VERSION = f"{PROJECT}/models/m/versions"


class Registry(registry.AccessServiceServicer):
    """Says which keys work; `say` changes it."""

    def __init__(self) -> None:
        self.revision, self.keys, self.changed = 0, {}, asyncio.Event()

    def say(self, **roles: list[tuple[str, types.Role.ValueType]]) -> None:
        self.revision, self.keys = self.revision + 1, roles
        self.changed.set()
        self.changed = asyncio.Event()

    async def WatchAccess(self, request: Any, context: Any) -> AsyncIterator[registry.WatchAccessResponse]:
        while True:
            changed, response = self.changed, registry.WatchAccessResponse(revision=self.revision)
            for secret, bindings in self.keys.items():
                key = response.keys.add(secret_sha256=digest(f"sk-sluice-{secret}"), principal=f"{PROJECT}/apiKeys/k")
                for project, role in bindings:
                    key.role_bindings.add(project=project, role=role)
            yield response
            await changed.wait()


class Log(events.EventServiceServicer):
    """The registry's event log, of revocations alone; what it says again and again has one sequence."""

    def __init__(self) -> None:
        self.revoked: list[str] = []
        self.changed = asyncio.Event()
        self.asked: list[int | None] = []
        self.followed = asyncio.Event()

    def revoke(self, version: str) -> None:
        self.revoked.append(version)
        self.changed.set()

    async def WatchEvents(self, request: Any, context: Any) -> AsyncIterator[events.WatchEventsResponse]:
        self.asked.append(request.after_sequence if request.HasField("after_sequence") else None)
        assert request.HasField("since")
        sent = self.asked[-1] or 0
        self.followed.set()
        while True:
            for sequence, version in enumerate(self.revoked[sent:], sent + 1):
                type_ = "sluice.registry.v1.model_version.revoked"
                event = events.Event(type=type_, subject=version, sequence=sequence)
                yield events.WatchEventsResponse(event=event)
            sent = len(self.revoked)
            self.changed.clear()
            await self.changed.wait()


class Control(gateway.RouteServiceServicer):
    """Says where to route; keeps what workers say."""

    def __init__(self) -> None:
        self.tables: deque[gateway.RouteTable] = deque()
        self.changed = asyncio.Event()
        self.heard: list[gateway.SyncRoutesRequest] = []
        self.news = asyncio.Event()

    def say(self, table: gateway.RouteTable) -> None:
        self.tables.append(table)
        self.changed.set()

    async def until(self, true: Callable[[], bool], within_s: float = 60) -> None:
        async with asyncio.timeout(within_s):
            while not true():
                self.news.clear()
                await self.news.wait()

    async def SyncRoutes(self, requests: Any, context: Any) -> AsyncIterator[gateway.SyncRoutesResponse]:
        listening = asyncio.create_task(self._listen(requests))
        try:
            sent = max(0, len(self.tables) - 1)
            while True:
                for table in list(self.tables)[sent:]:
                    yield gateway.SyncRoutesResponse(table=table)
                sent = len(self.tables)
                self.changed.clear()
                await self.changed.wait()
        finally:
            listening.cancel()

    async def _listen(self, requests: Any) -> None:
        async for request in requests:
            self.heard.append(request)
            self.news.set()

    def samples(self, version: str) -> list[gateway.ArmSample]:
        return [each for request in self.heard for each in request.samples if each.model_version == version]


@dataclass
class Around:
    """What is around the worker."""

    settings: Settings
    environ: dict[str, str]
    folder: Path
    registry: Registry = field(default_factory=Registry)
    control: Control = field(default_factory=Control)
    log: Log = field(default_factory=Log)
    engines: list[EngineProcess] = field(default_factory=list)
    serving: Server | None = None  # of the registry

    async def serve(self, name: str, *services: Service) -> Server:
        authenticator = Authenticator(AccessSnapshot(), Verifier(self.settings.identity_folder), service=name)
        return await serve(self.settings.address(name), services, interceptors(authenticator, authorize))

    async def serve_registry(self) -> Server:
        log = (events.add_EventServiceServicer_to_server, self.log)
        return await self.serve("registry", (registry.add_AccessServiceServicer_to_server, self.registry), log)

    async def serve_control(self) -> Server:
        return await self.serve("gateway", (gateway.add_RouteServiceServicer_to_server, self.control))

    async def engine(self, number: int, **faults: Any) -> gateway.Upstream:
        launch = Launch(write_model(self.folder / "model"), f"m-{number}", free_port(), "a-key", self.folder)
        engine = EngineProcess.spawn(self.folder / f"engine-{number}", FakeEngine(**faults), launch)
        self.engines.append(engine)
        await engine.wait_ready(timeout_s=20)
        return gateway.Upstream(url=launch.url, key=launch.key, model=launch.model)

    def client(self, key: str = "user") -> httpx.AsyncClient:
        url, headers = f"http://{self.settings.address('http')}", {"authorization": f"Bearer sk-sluice-{key}"}
        return httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=20)


def table(revision: int, stable: tuple[int, gateway.Upstream], *rest: gateway.CandidateTarget) -> gateway.RouteTable:
    number, upstream = stable
    arm = gateway.Arm(model_version=f"{VERSION}/{number}", role=gateway.ARM_ROLE_STABLE, weight_percent=100)
    route = gateway.Route(endpoint=ENDPOINT, interface="chat", arms=[gateway.RoutedArm(arm=arm, upstream=upstream)])
    return gateway.RouteTable(revision=revision, routes=[route], candidates=rest)


BODY = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}


async def chat(client: httpx.AsyncClient, **more: object) -> httpx.Response:
    return await client.post("/v1/chat/completions", json={**BODY, **more})


async def eventually(client: httpx.AsyncClient, status: int, within_s: float = 60) -> None:
    """Returns as soon as `/v1/models` answers so."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                if (await client.get("/v1/models")).status_code == status:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.01)


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[Around]:
    settings, environ = prepared(tmp_path)
    made = Around(settings, environ, tmp_path)
    made.registry.say(user=[(PROJECT, types.ROLE_INFERENCE)], visitor=[("projects/other", types.ROLE_ADMIN)])
    made.serving = await made.serve_registry()
    yield made
    await made.serving.stop(0)
    for engine in made.engines:
        await engine.stop()


async def test_a_worker_follows_keys_and_routes_and_outlives_its_control(around: Around) -> None:
    control = around.control
    two, three = await around.engine(2), await around.engine(3, chunk_delay_s=0.01)
    control.say(table(5, (2, two)))
    server = await around.serve_control()
    log = around.folder / "worker.log"
    with process("services.gateway.worker.__main__", around.environ, log) as worker:
        async with around.client() as user, around.client("visitor") as visitor:
            await eventually(user, 200)
            assert control.heard[0].revision in (0, 5)
            answer = await chat(user)
            assert (answer.status_code, answer.headers["x-sluice-version"]) == (200, f"{VERSION}/2")
            assert (await chat(visitor)).status_code == 404
            assert (await chat(user, model=7)).status_code == 400
            await control.until(lambda: bool(control.samples(f"{VERSION}/2")))
            (sample,) = control.samples(f"{VERSION}/2")
            assert (sample.requests, sample.errors, sample.revision, sample.endpoint) == (1, 0, 5, ENDPOINT)
            assert (sum(sample.duration_buckets), len(sample.duration_buckets)) == (1, 80)

            judged = gateway.CandidateTarget(
                candidate_route=f"{PROJECT}/candidateRoutes/c",
                model="candidate-c",
                model_version=f"{VERSION}/4",
                upstream=three,
            )
            control.say(table(6, (3, three), judged))
            await control.until(lambda: control.heard[-1].revision == 6, 1)
            answer = await chat(user)
            assert answer.headers["x-sluice-version"] == f"{VERSION}/3"
            assert len({request.worker for request in control.heard}) == 1
            evaluator = Identity.load(around.settings.identity_folder / "evaluator.key").token("gateway")
            user.headers["authorization"] = f"Bearer {evaluator}"
            assert (await chat(user, model="candidate-c")).headers["x-sluice-version"] == f"{VERSION}/4"
            user.headers["authorization"] = "Bearer sk-sluice-user"

            refused = table(7, (2, two))
            refused.routes[0].arms[0].arm.weight_percent = 90
            control.say(refused)
            control.say(table(8, (2, two)))
            await control.until(lambda: control.heard[-1].revision == 8, 1)
            assert 7 not in {request.revision for request in control.heard}

            await server.stop(0)
            assert (await chat(user)).status_code == 200
            before = len(control.samples(f"{VERSION}/2"))
            server = await around.serve_control()
            await control.until(lambda: len(control.samples(f"{VERSION}/2")) > before)
            assert control.heard[-1].revision == 8

            around.registry.say()
            await eventually(user, 401)
            assert worker.poll() is None
    await server.stop(0)
    text = log.read_text()
    assert "route_table_refused" in text
    assert "sk-sluice" not in text and "a-key" not in text and "hello" not in text
    (record,) = (around.settings.home / "logs" / "served").iterdir()
    assert record.read_text().count('"kind":"request"') == 4


async def test_a_revocation_holds_while_the_control_process_is_away_and_none_is_missed(around: Around) -> None:
    control, one = around.control, await around.engine(1)
    control.say(table(1, (2, one)))
    server = await around.serve_control()
    with process("services.gateway.worker.__main__", around.environ, around.folder / "worker.log"):
        async with around.client() as user:
            await eventually(user, 200)
            async with asyncio.timeout(10):
                await around.log.followed.wait()
            await server.stop(0)
            assert (await chat(user)).status_code == 200
            around.log.revoke(f"{VERSION}/9")
            around.log.revoke(f"{VERSION}/2")
            async with asyncio.timeout(20):  # at once, but the machine may be busy
                while (await chat(user)).status_code == 200:
                    pass
            server = await around.serve_control()
            await control.until(lambda: control.heard[-1].revision == 1)
            assert (await chat(user)).status_code == 503

            assert around.serving is not None
            await around.serving.stop(0)
            around.log.revoke(f"{VERSION}/3")
            control.say(table(2, (3, one)))
            await control.until(lambda: control.heard[-1].revision == 2)
            around.serving = await around.serve_registry()
            async with asyncio.timeout(10):
                while (await chat(user)).status_code == 200:
                    pass
            assert around.log.asked == [None, 2]
    await server.stop(0)


async def test_without_auth_everybody_may_and_services_keep_their_names(around: Around) -> None:
    around.control.say(table(1, (2, await around.engine(2))))
    server = await around.serve_control()
    environ = {**around.environ, "ENABLE_AUTH": "false", "SLUICE_HTTP_TRACE_RATIO": "1"}
    with process("services.gateway.worker.__main__", environ, around.folder / "worker.log"):
        async with around.client("nobody") as client:
            await eventually(client, 200)
            del client.headers["authorization"]
            answer = await chat(client)
            assert answer.status_code == 200
    await server.stop(0)
    (span,) = read_traces(around.settings.home / "logs" / "traces")  # of what nobody asked for there is none
    assert span["trace_id"] == answer.headers["traceresponse"].split("-")[1]
    assert (span["service"], span["attributes"]["model_version"]) == ("gateway-worker", f"{VERSION}/2")


async def test_a_taken_port_is_one_sentence(around: Around) -> None:
    port = around.settings.address("http").rpartition(":")[2]
    taken = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", int(port))
    log = around.folder / "worker.log"
    with process("services.gateway.worker.__main__", around.environ, log) as worker:
        assert worker.wait(60) == 1
    assert f"error: port {port} of 127.0.0.1 cannot be served" in log.read_text()
    taken.close()
