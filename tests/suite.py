"""The real suite for tests: chosen processes of `python -m services up` on free ports below a folder of the test."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from kit.rpc.client import connect
from sluice.credentials import recall
from tests import suite_guard

ROOT = Path(__file__).resolve().parent.parent
START_S, STOP_S = 90.0, 60.0


@dataclass
class Suite:
    """One suite in `folder/home`, with its own XDG_CONFIG_HOME; empty `programs` means all processes.

    `module` is what is run: `services`, or `tests.fakes.suite` for one with fake engines and recipes.

    It may be stopped, killed and started again; `close` leaves no process behind. A guard process does the same
    when this one dies without having come to that.
    """

    folder: Path
    programs: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    module: str = "services"
    process: "subprocess.Popen[str] | None" = None
    guard: "subprocess.Popen[bytes] | None" = None

    @property
    def home(self) -> Path:
        """The suite's SLUICE_HOME."""
        return self.folder / "home"

    @property
    def variables(self) -> dict[str, str]:
        """The environment of the suite, and of a CLI that should talk to it."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "OTEL_"))}
        own = {"SLUICE_HOME": str(self.home), "XDG_CONFIG_HOME": str(self.folder / "config")}
        return {**inherited, "OMP_NUM_THREADS": "2", **own, **self.environ}

    @property
    def state(self) -> dict[str, Any]:
        """What the state file says now: `address`, `http`, `ports`, `pid` and `processes`."""
        return dict(json.loads((self.home / "run" / "suite.json").read_text()))

    @property
    def ports(self) -> dict[str, int]:
        """The port of each process by name; `gateway` and `http` are the public ones."""
        return dict(self.state["ports"])

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each running process by name."""
        return dict(self.state["processes"])

    @property
    def key(self) -> str:
        """The administrator's key of the first start."""
        known = recall(self.state["address"], self.variables)
        assert known is not None
        return known.api_key

    def address(self, name: str = "gateway") -> str:
        """Where a process listens for gRPC."""
        return f"127.0.0.1:{self.ports[name]}"

    @asynccontextmanager
    async def channel(self, name: str = "gateway", key: str = "") -> AsyncIterator[grpc.aio.Channel]:
        """A channel to a process under a key, the administrator's when none is given."""
        async with connect(self.address(name), token=key or self.key) as channel:
            yield channel

    def command(self, *arguments: str, **more: Any) -> "subprocess.CompletedProcess[str]":
        """Runs `python -m services …` in the suite's environment to its end."""
        command = [sys.executable, "-m", self.module, *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=self.variables, capture_output=True, text=True, timeout=START_S, **more
        )

    def start(self) -> None:
        """Starts it and returns when everything chosen serves."""
        self._watch_over()
        command = [sys.executable, "-m", self.module, "up", "--json", "--grpc-port", "0", "--http-port", "0"]
        command += ["--only", ",".join(self.programs)] if self.programs else []
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "up.log").open("a") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.variables,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            self.process.wait(STOP_S)
            raise RuntimeError((self.folder / "up.log").read_text()[-2000:])

    def stop(self) -> None:
        """Stops it in order, as Ctrl-C does."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(STOP_S)

    def kill(self, name: str) -> int:
        """Kills a process of the suite without warning; the suite starts it again. Returns the id it had."""
        pid = self.pids[name]
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_restarted(self, name: str, killed: int, timeout_s: float = 60.0) -> None:
        """Returns when the process runs under another id than `killed`."""
        deadline = time.monotonic() + timeout_s
        while self.pids.get(name, killed) == killed:
            if time.monotonic() > deadline:
                raise AssertionError(f"`{name}` was not started again within {timeout_s} s")
            time.sleep(0.02)

    def close(self) -> None:
        """Stops it; what is left of it then, engines for one, is killed."""
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
        finally:
            suite_guard.sweep(str(self.home))
            if self.process is not None:
                self.process.wait(STOP_S)
                assert self.process.stdout is not None
                self.process.stdout.close()
            if self.guard is not None:
                self.guard.communicate()

    def _watch_over(self) -> None:
        if self.guard is None:
            guard = [sys.executable, suite_guard.__file__, str(self.home)]
            self.guard = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)


@contextmanager
def suite(folder: Path, *programs: str, module: str = "services", **environ: str) -> Iterator[Suite]:
    """A running suite: `with suite(tmp_path, "registry", "dataset", LOG_LEVEL="debug") as running:`."""
    running = Suite(folder, programs, environ, module)
    try:
        running.start()
        yield running
    finally:
        running.close()
