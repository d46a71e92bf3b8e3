"""The Node.js client of `tests/contract/node`: its packages are installed once for each lock file."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.suite import ROOT

SOURCES = ROOT / "tests" / "contract" / "node"
FILES = ("package.json", "package-lock.json", "client.mjs", "crc32.mjs")
INSTALL_S, RUN_S = 150.0, 120.0


class NotHere(Exception):
    """Node.js, or what the client needs of npm, cannot be had on this machine."""


def install(otherwise: Path) -> Path:
    """The script beside its packages, in the environment if there is one, else in `otherwise`; raises NotHere."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise NotHere("Node.js is not installed")
    lock = hashlib.sha256((SOURCES / "package-lock.json").read_bytes()).hexdigest()[:12]
    kept = ROOT / ".venv" / f"node-client-{lock}"
    folder = kept if kept.parent.is_dir() else otherwise
    folder.mkdir(exist_ok=True)
    for name in FILES:
        shutil.copy(SOURCES / name, folder / name)
    if not (folder / "node_modules" / ".package-lock.json").exists():
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=INSTALL_S)
        if done.returncode:
            raise NotHere(f"npm cannot install its packages here: {done.stderr[-300:]}")
    return folder / "client.mjs"


def run(client: Path, address: str, key: str, rows: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    """The client to its end."""
    command = ["node", str(client), "--descriptors", str(ROOT / "sluice" / "descriptors.binpb"), "--address", address]
    command += ["--rows", str(rows), *more]
    environ = {**os.environ, "SLUICE_API_KEY": key}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=RUN_S)
