"""The whole control process, as `python -m services.gateway` composes it: NATS, events, pass-through, reflection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from kit.auth import Identity
from kit.bus import Relay
from kit.rpc.client import connect
from kit.rpc.server import Server
from kit.settings import SERVICES
from kit.store import Database
from kit.store.tables import KIT
from services.gateway.app import application
from services.gateway.settings import GatewaySettings
from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry
from tests.control_parts import ENDPOINT, PROJECT, QUICK, Host, Registry, running, serving, until, version
from tests.servers import NatsServer, nats_server


@dataclass
class Suite:
    """The control process, and the registry's side of the bus."""

    server: Server
    channel: grpc.aio.Channel
    versions: Registry
    events: Database


@pytest.fixture
def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    with nats_server(tmp_path / "nats") as server:
        yield server


@asynccontextmanager
async def suite(home: Path, nats: NatsServer) -> AsyncIterator[Suite]:
    versions, host = Registry(), Host()
    Identity.create(home / "identity", "gateway")
    events = await Database.open("sqlite://", service="registry")
    await events.create_tables(KIT)
    bus = await nats.bus("registry")
    async with (
        serving((registry.add_ModelVersionServiceServicer_to_server, versions)) as (behind, _),
        serving((gateway.add_EngineHostServiceServicer_to_server, host)) as (engines, _),
        running(Relay(events, bus).run()),
    ):
        environ = {
            "SLUICE_HOME": str(home),
            "SLUICE_IDENTITY": str(home / "identity"),
            "SLUICE_NATS_URL": nats.url,
            "SLUICE_NATS_PASSWORD": nats.credentials["gateway"].password,
            "ENABLE_AUTH": "false",
            "SLUICE_GATEWAY_ADDRESS": "127.0.0.1:0",
            "SLUICE_ENGINE_HOST_ADDRESS": engines.address,
            **{f"SLUICE_{name.upper()}_ADDRESS": behind.address for name in SERVICES if name != "gateway"},
        }
        settings = replace(GatewaySettings.from_env(environ), timing=QUICK)
        async with application(settings) as server, connect(server.address, retries=False) as channel:
            yield Suite(server, channel, versions, events)
    await bus.close()
    await events.close()


async def test_an_approval_on_the_bus_becomes_a_route_and_a_revocation_ends_it(
    tmp_path: Path, nats: NatsServer
) -> None:
    async with suite(tmp_path, nats) as around:
        name = around.versions.put(1)
        async with around.events.begin() as unit:
            unit.emit(registry.ModelVersionApproved(model_version=name, endpoint="m"), name)
        endpoints = gateway.EndpointServiceStub(around.channel)

        async def serving_versions() -> list[str]:
            found = await endpoints.ListEndpoints(gateway.ListEndpointsRequest(parent=PROJECT))
            return [arm.model_version for each in found.endpoints for arm in each.route]

        async def serves() -> bool:
            return await serving_versions() == [name]

        await until(serves, 20.0)
        around.versions.put(1, registry.MODEL_VERSION_STATE_REVOKED)
        async with around.events.begin() as unit:
            unit.emit(registry.ModelVersionRevoked(model_version=name, reason="found wanting"), name)

        async def nobody_serves() -> bool:
            return await serving_versions() == []

        await until(nobody_serves)
        found = await endpoints.GetEndpoint(gateway.GetEndpointRequest(name=ENDPOINT))
        assert found.endpoint.interface == "chat"


async def test_other_services_are_behind_the_same_port_and_all_are_shown(tmp_path: Path, nats: NatsServer) -> None:
    async with suite(tmp_path, nats) as around:
        around.versions.put(1)
        models = registry.ModelVersionServiceStub(around.channel)
        found = await models.GetModelVersion(registry.GetModelVersionRequest(name=version(1)))
        assert found.model_version.name == version(1)

        async def ask() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            yield reflection_pb2.ServerReflectionRequest(list_services="")
            for name in ("sluice.trainer.v1.TrainingJobService", "sluice.gateway.v1.RolloutService"):
                yield reflection_pb2.ServerReflectionRequest(file_containing_symbol=name)

        stub = reflection_pb2_grpc.ServerReflectionStub(around.channel)
        listed, *files = [answer async for answer in stub.ServerReflectionInfo(ask())]
        names = {each.name for each in listed.list_services_response.service}
        assert {"sluice.dataset.v1.UploadService", "sluice.gateway.v1.EndpointService"} <= names
        assert "sluice.gateway.v1.EngineHostService" not in names
        assert all(answer.file_descriptor_response.file_descriptor_proto for answer in files)
