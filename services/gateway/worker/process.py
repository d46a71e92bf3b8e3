"""The composition root of a data-path worker: its keys, its routes, its record, and the port it serves."""

from __future__ import annotations

import gc
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from kit.auth import Verifier
from kit.rpc.errors import Unauthenticated
from kit.serve import background, process
from services.gateway.worker.app import Worker
from services.gateway.worker.serve import serving
from services.gateway.worker.served import ServedLog, prune
from services.gateway.worker.settings import WorkerSettings
from services.gateway.worker.snapshot import ALL_PROJECTS, Principal
from services.gateway.worker.sync import RevocationSync, RouteSync
from services.gateway.worker.translation import key_table, principal
from sluice.events import v1 as events
from sluice.gateway import v1 as gateway

DRAIN_S = 5.0
ANONYMOUS = Principal("anonymous", {ALL_PROJECTS: frozenset({"admin"})})


@asynccontextmanager
async def application(own: WorkerSettings) -> AsyncIterator[Worker]:
    """The running worker. Requests under way get `DRAIN_S` to end when it stops. Unavailable: the port is taken."""
    settings = own.process
    name = f"{os.getpid()}-{secrets.token_hex(4)}"
    records = settings.home / "logs" / "served"
    prune(records, time.time())
    async with process(settings, "gateway-worker") as runtime:
        worker = Worker(
            ServedLog(records / f"{name}.jsonl"),
            verify_token=_verify(Verifier(settings.identity_folder)),
            anonymous=None if settings.enable_auth else ANONYMOUS,
            trace_ratio=own.trace_ratio,
        )
        runtime.access.on_swap(lambda keys: worker.swap_keys(key_table(keys)))
        routes = RouteSync(worker, name, runtime.stub("gateway", gateway.RouteServiceStub))  # type: ignore[arg-type]  # it is the async one
        revocations = RevocationSync(worker, runtime.stub("registry", events.EventServiceStub))  # type: ignore[arg-type]
        host, port = _split(settings.address("http"))
        async with background([routes.run, revocations.run]), serving(worker, host, port, drain_s=DRAIN_S):
            # What exists now lives as long as the process: no collection needs to look at it again.
            gc.collect()
            gc.freeze()
            yield worker


def _verify(verifier: Verifier) -> Callable[[str], Principal | None]:
    def verify(token: str) -> Principal | None:
        try:
            return principal(verifier.verify(token, "gateway"))
        except Unauthenticated:
            return None

    return verify


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"SLUICE_HTTP_ADDRESS is `{address}`; give it as host:port, such as 127.0.0.1:8080")
    return host.strip("[]"), int(port)
