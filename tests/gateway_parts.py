"""A suite's folder and processes of the gateway for tests: plain functions, free ports, real identities."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from kit.rpc.ports import free_port
from kit.settings import Settings
from services.suite.home import Home

PEERS = ("registry", "gateway", "engine-host", "http")


def prepared(folder: Path) -> tuple[Settings, dict[str, str]]:
    """The settings of the gateway in a new home, with free ports, and the environment that says the same."""
    home = Home(folder / "home", {"SLUICE_KEK": str(folder / "kek")})
    home.prepare()
    environ = home.variables({**{name: free_port() for name in PEERS}, "nats": 1})
    return Settings.from_env("gateway", environ), environ


@contextlib.contextmanager
def process(module: str, environ: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m module`; SIGTERM at the end, and it must leave by itself."""
    with log.open("ab") as output:
        running = subprocess.Popen(
            [sys.executable, "-m", module], env={**os.environ, **environ}, stdout=output, stderr=output
        )
    try:
        yield running
        if running.poll() is None:
            running.send_signal(signal.SIGTERM)
            assert running.wait(30) == 0, log.read_text()[-3000:]
    finally:
        running.kill()
        running.wait()
