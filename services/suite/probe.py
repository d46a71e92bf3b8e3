"""Asks each process of a suite whether it serves; changes nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

HTTP = "gateway-worker"


async def serving(ports: Mapping[str, int], names: Collection[str], timeout_s: float = 2.0) -> dict[str, bool]:
    """Whether each of the processes ``names`` serves; ``gateway-worker`` by a request to its HTTP port."""
    answers = await asyncio.gather(
        *(_http_serving(ports["http"]) if name == HTTP else _grpc_serving(ports[name], timeout_s) for name in names)
    )
    return dict(zip(names, answers, strict=True))


async def wait_until_serving(ports: Mapping[str, int], names: Collection[str], within_s: float) -> bool:
    """Returns True as soon as all serve, False when they did not in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if all((await serving(ports, names)).values()):
            return True
        await asyncio.sleep(0.1)
    return False


async def _grpc_serving(port: int, timeout_s: float) -> bool:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _http_serving(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        line = await asyncio.wait_for(reader.readline(), 2.0)
        writer.close()
    except (OSError, TimeoutError):
        return False
    return b" 200 " in line
