"""A gRPC server with health, reflection and interceptors; which services it carries it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha._async import ReflectionServicer
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server

from kit.rpc.errors import Unavailable

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
HEALTH = "grpc.health.v1.Health"
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
Service = tuple[Callable[[Any, Any], None], object]


@dataclass
class Server:
    """A server that runs; ``async with`` stops it at the end."""

    grpc: grpc.aio.Server
    health: HealthServicer
    host: str
    port: int
    names: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where clients connect, as `host:port`."""
        return f"{self.host}:{self.port}"

    async def set_serving(self, serving: bool, name: str = "") -> None:
        """Says in the health service whether ``name`` serves; empty means the server and all its services."""
        states = health_pb2.HealthCheckResponse
        for each in [name] if name else ["", *self.names]:
            await self.health.set(each, states.SERVING if serving else states.NOT_SERVING)

    async def stop(self, grace_s: float = 5.0) -> None:
        """Refuses new calls, gives running ones ``grace_s`` to end, then cancels them."""
        await self.health.enter_graceful_shutdown()
        await self.grpc.stop(grace_s)

    async def wait(self) -> None:
        """Returns when the server has stopped."""
        await self.grpc.wait_for_termination()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop(grace_s=1.0)


async def serve(
    address: str,
    services: Iterable[Service],
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    *,
    generic_handlers: Sequence[grpc.GenericRpcHandler] = (),
    reflected: Iterable[str] = (),
    pool: DescriptorPool | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    credentials: grpc.ServerCredentials | None = None,
) -> Server:
    """Starts a server on ``address`` (`host:port`, port 0 for any free one) and returns it once it listens.

    ``services`` are pairs (generated add function, servicer); ``generic_handlers`` come after them.
    Reflection shows the services, and those of ``reflected`` out of ``pool``. Unavailable: the port is taken.
    """
    server = grpc.aio.server(interceptors=list(interceptors), options=_options(max_message_bytes))
    registrar = _Registrar(server)
    for add, servicer in services:
        add(servicer, registrar)
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    shown = {*registrar.names, *reflected, HEALTH, REFLECTION}
    add_ServerReflectionServicer_to_server(ReflectionServicer(shown, pool=pool), server)
    if generic_handlers:
        server.add_generic_rpc_handlers(tuple(generic_handlers))
    started = Server(server, health, address.rpartition(":")[0], _bind(server, address, credentials), registrar.names)
    await server.start()
    await started.set_serving(True)
    return started


class _Registrar:
    """Passes services on to the server and remembers their full names."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self.names: list[str] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.ServiceRpcHandler]) -> None:
        self.names += [str(handler.service_name()) for handler in handlers]
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self._server.add_registered_method_handlers(service, handlers)


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    try:
        if credentials:
            return int(server.add_secure_port(address, credentials))
        return int(server.add_insecure_port(address))
    except RuntimeError:
        host, _, port = address.rpartition(":")
        raise Unavailable(
            f"port {port} of {host} is taken, or the host is not this machine; set another one, "
            f"or stop the process that `ss -ltnp 'sport = :{port}'` shows"
        ) from None


def _options(max_message_bytes: int) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # else a second server binds the same port in silence
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.http2.bdp_probe", 0),  # windows that grow let a slow reader hold 30 MiB; without, two messages
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
    ]
