"""The composition root of the engine agent: builds what it needs and passes it on by value."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from kit.auth import authorize
from kit.blobs import FileKek, open_store
from kit.rpc.interceptors import interceptors
from kit.rpc.server import Server, serve
from kit.serve import Runtime, process
from services.gateway.engines import ENGINES
from services.gateway.engines.host import EngineHost
from services.gateway.engines.protocol import Engine
from services.gateway.host.agent import EngineAgent
from services.gateway.host.servicer import EngineHostServicer
from services.gateway.host.settings import HostSettings
from sluice.gateway import v1 as gateway


@asynccontextmanager
async def application(settings: HostSettings, engines: Mapping[str, Engine] = ENGINES) -> AsyncIterator[Server]:
    """The running agent. It adopts the engines that an agent which died has left, and stops all when it is stopped.

    Raises ValueError when there is no such engine.
    """
    if settings.engine not in engines:
        raise ValueError(f"SLUICE_ENGINE is `{settings.engine}`; it takes one of {', '.join(engines)}")
    suite = settings.process
    with _alone(suite.home / "run" / "engines"):
        async with process(suite, "engine-host") as runtime, _serving(settings, engines, runtime) as server:
            yield server


@asynccontextmanager
async def _serving(settings: HostSettings, engines: Mapping[str, Engine], runtime: Runtime) -> AsyncIterator[Server]:
    suite = settings.process
    hosted = EngineHost(
        suite.home / "run" / "engines",
        engines[settings.engine],
        sizing=settings.sizing,
        start_timeout_s=settings.start_limit_s,
        probe_timeout_s=settings.silence_limit_s,
        scratch_proof=settings.scratch_proof,
    )
    agent = EngineAgent(
        hosted,
        open_store(suite.blobs_url, FileKek.load(suite.kek_path, home=suite.home)),
        suite.home / "cache" / "engine",
        cache_bytes=settings.cache_bytes,
        engine=settings.engine,
        host=settings.host,
    )
    try:
        server = await serve(
            suite.address("engine-host"),
            [(gateway.add_EngineHostServiceServicer_to_server, EngineHostServicer(agent))],
            interceptors(runtime.authenticator, authorize),
        )
        async with server:
            yield server
    finally:
        await agent.stop()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds a lock for the folder's engines: a second agent would stop those of the first. Raises ValueError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / "agent.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another engine agent runs on `{folder}`; stop it, or set SLUICE_HOME") from None
        yield
    finally:
        os.close(lock)
