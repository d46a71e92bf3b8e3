"""Runs a worker on uvicorn, httptools and uvloop; knows nothing of signals, processes or where snapshots
come from.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial

import uvicorn

from kit.rpc.errors import Unavailable
from services.gateway.worker.app import Worker
from services.gateway.worker.protocol import HEAD_S, WorkerProtocol


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the composition root decides what a signal means


@contextlib.asynccontextmanager
async def serving(
    worker: Worker, host: str, port: int = 0, *, reuse_port: bool = False, drain_s: float = 30.0, head_s: float = HEAD_S
) -> AsyncIterator[int]:
    """The worker listening; yields the port (a free one for 0). On exit stops accepting, waits `drain_s` for
    requests under way, then cancels them. `reuse_port` lets several worker processes share a port. A connection
    whose next request takes longer than `head_s` for its headers is closed.

    Use it under uvloop: `asyncio.Runner(loop_factory=uvloop.new_event_loop)`. Raises Unavailable when it can't
    bind.
    """
    listener = _listen(host, port, reuse_port)
    config = uvicorn.Config(
        worker,
        http=partial(WorkerProtocol, head_s=head_s),  # type: ignore[arg-type]  # called, never subclassed
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(drain_s),
    )
    server = _Server(config)
    await worker.start()
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        listening = asyncio.create_task(server.listening.wait())
        await asyncio.wait((running, listening), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            listening.cancel()
            await running
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await asyncio.gather(running, return_exceptions=True)
        listener.close()
        await worker.aclose()


def _listen(host: str, port: int, reuse_port: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(2048)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"port {port} of {host} cannot be served ({error.strerror}); stop what listens there or choose another"
        ) from error
    return listener
