"""A Node.js client with nothing but the descriptor set talks to the suite: the contract is one for every language."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.uploads import jsonl
from tests.suite import ROOT, suite

SOURCES = Path(__file__).parent / "node"
CLIENT = ("package.json", "package-lock.json", "client.mjs", "crc32.mjs")


@pytest.fixture(scope="session")
def client(tmp_path_factory):
    """The script beside its packages, which are installed once for each lock file, outside the repository's files."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    lock = hashlib.sha256((SOURCES / "package-lock.json").read_bytes()).hexdigest()[:12]
    cache = ROOT / ".venv" / f"node-client-{lock}"
    folder = cache if cache.parent.is_dir() else tmp_path_factory.mktemp("node")
    folder.mkdir(exist_ok=True)
    for name in CLIENT:
        shutil.copy(SOURCES / name, folder / name)
    if not (folder / "node_modules" / ".package-lock.json").exists():
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=150)
        if done.returncode:
            pytest.skip(f"npm cannot install its packages here: {done.stderr[-300:]}")
    return folder / "client.mjs"


def run(client, address, key, rows, *more):
    """The client to its end."""
    command = ["node", str(client), "--descriptors", str(ROOT / "sluice" / "descriptors.binpb"), "--address", address]
    environ = {**os.environ, "SLUICE_API_KEY": key}
    command += ["--rows", str(rows), *more]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)


def test_node_uploads_a_dataset_and_lists_it(client, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(jsonl(40, size=70_000))  # several chunks
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{}\n")
    with suite(tmp_path / "suite", "registry", "dataset") as running:
        address = running.address("dataset")
        done = run(client, address, running.key, rows)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        name = "projects/default/datasets/from-node"
        assert told == {"dataset": name, "version": f"{name}/versions/1", "rows": 40, "datasets": [name]}
        again = run(client, address, running.key, rows)
        assert again.returncode == 1 and "exists; choose another id" in again.stderr
        refused = run(client, address, running.key, broken, "--dataset", "broken")
        assert refused.returncode == 1 and "row 1" in refused.stderr
        stranger = run(client, address, "sk-sluice-guessed", rows)
        assert stranger.returncode == 1 and "set SLUICE_API_KEY" in stranger.stderr
