"""Node.js with packages of npm, installed once for each lock file, and the client of `tests/contract/node`."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.suite import ROOT

SOURCES = ROOT / "tests" / "contract" / "node"
INSTALL_S, RUN_S = 150.0, 120.0


class NotHere(Exception):
    """There is no Node.js on this machine."""


class InstallFailed(Exception):
    """npm is there, and what is needed of it cannot be had."""


def install(otherwise: Path) -> Path:
    """The client's script beside its packages; raises as `installed`."""
    return installed(SOURCES, "node-client", otherwise) / "client.mjs"


def installed(sources: Path, name: str, otherwise: Path) -> Path:
    """The folder of copied scripts with their packages, in the environment if there is one, else in `otherwise`.

    No script of a package runs. Raises NotHere and InstallFailed.
    """
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise NotHere("Node.js is not installed")
    lock = hashlib.sha256((sources / "package-lock.json").read_bytes()).hexdigest()[:12]
    kept = ROOT / ".venv" / f"{name}-{lock}"
    folder = kept if kept.parent.is_dir() else otherwise
    folder.mkdir(exist_ok=True)
    for file in (*sources.glob("*.json"), *sources.glob("*.mjs")):
        shutil.copy(file, folder / file.name)
    if not (folder / "node_modules" / ".package-lock.json").exists():
        fill(npm, folder)
    return folder


def fill(npm: str, folder: Path) -> None:
    """Has npm install what the lock file of a folder names. Raises InstallFailed."""
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=INSTALL_S)
    if done.returncode:
        raise InstallFailed(f"npm cannot install its packages here: {done.stderr[-300:]}")


def run(client: Path, address: str, key: str, rows: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    """The client to its end."""
    command = ["node", str(client), "--descriptors", str(ROOT / "sluice" / "descriptors.binpb"), "--address", address]
    command += ["--rows", str(rows), *more]
    environ = {**os.environ, "SLUICE_API_KEY": key}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=RUN_S)
