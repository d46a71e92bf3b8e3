"""The dataset service on a real S3 server: uploads, checks, appends, reads, a server that leaves, a wrong key."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time

import obstore
import pytest
from obstore.store import S3Store

from kit.rpc.errors import Unavailable
from sluice import Client
from tests.integration.uploads import Uploads, chunks, fault_of, jsonl
from tests.seaweed import seaweed
from tests.suite import ROOT, suite

pytestmark = [pytest.mark.prove, pytest.mark.timeout(120)]
URL = "s3://blobs/suite"


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="module")
def running(tmp_path_factory, s3):
    settings = {"SLUICE_BLOBS_URL": URL, **{name.upper(): value for name, value in s3.options.items()}}
    with suite(tmp_path_factory.mktemp("suite"), "registry", "dataset", **settings) as started:
        yield started


@pytest.fixture
def client(running):
    with Client(running.address("dataset"), running.key, "default") as client:
        yield client


@pytest.fixture
def bucket(s3):
    return S3Store.from_url(URL, config=s3.options, client_options={"allow_http": True})


def paths(bucket, under="projects/default"):
    return [each["path"] for each in obstore.list(bucket, prefix=under).collect()]


def written(path, count, size=0, start=0):
    """A file with so many rows, and what is in it."""
    rows = {f"question {number}": os.urandom(size // 2).hex() + "a" for number in range(start, start + count)}
    path.write_text("".join(json.dumps({"prompt": key, "completion": value}) + "\n" for key, value in rows.items()))
    return rows


def read(client, version):
    messages = client.datasets.open(version).polars()["messages"].to_list()
    return {turns[0]["content"]: turns[1]["content"] for turns in messages}


def test_a_dataset_is_uploaded_appended_to_and_read(running, client, bucket, tmp_path):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    rows = written(first, 20, 1 << 20)
    assert client.datasets.upload(name="d", path=first, task_type="sft").row_count == 20
    assert read(client, "d@1") == rows
    more = written(second, 100, start=1000)
    version = client.datasets.upload(name="d", path=second, task_type="sft", append=True)
    assert (version.version, version.row_count, version.rows_added) == (2, 120, 100)
    assert read(client, "d@2") == rows | more and read(client, "d@1") == rows
    assert all(b"question" not in bytes(obstore.get(bucket, path).bytes()) for path in paths(bucket))
    assert not [path for path in (running.home / "blobs").rglob("*") if path.is_file()]
    deadline = time.monotonic() + 10
    while left := paths(bucket, "projects/default/uploads"):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_a_server_that_is_away_for_a_while_in_mid_upload(running, client, s3, tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = written(path, 40, 1 << 20)
    away = threading.Event()

    def leave():
        s3.kill()
        time.sleep(3)
        s3.start()

    absence = threading.Thread(target=leave)

    def watch(progress):
        if progress.phase == "sending" and progress.done > 10 << 20 and not away.is_set():
            away.set()
            absence.start()

    version = client.datasets.upload(name="away", path=path, task_type="sft", progress=watch)
    absence.join()
    assert away.is_set() and version.row_count == 40
    assert read(client, "away@1") == rows
    assert [each.version for each in client.datasets.versions("away")] == [1]


def test_the_key_is_rotated_under_a_running_suite(running, client, bucket, tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = written(path, 50)
    client.datasets.upload(name="rotated", path=path, task_type="sft")
    before = {each: bytes(obstore.get(bucket, each).bytes()) for each in paths(bucket, "projects/default/data")}
    done = sluice(running, "storage", "rotate-key", "--json")
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["rewrapped"] > 0 and last["done"] == last["total"]
    assert {each: bytes(obstore.get(bucket, each).bytes()) for each in before} == before
    assert read(client, "rotated@1") == rows
    assert client.datasets.upload(name="rotated", path=path, task_type="sft", append=True).version == 2
    keys = [json.loads(line) for line in sluice(running, "storage", "keys", "--json").stdout.splitlines()]
    assert [(key["state"], key["blobs"] > 0) for key in keys] == [("held", False), ("wraps", True)]
    refused = sluice(running, "storage", "retire-key", keys[0]["key"])
    assert refused.returncode == 6 and "on its way" in refused.stderr


def sluice(running, *arguments):
    command = [sys.executable, "-m", "sluice.cli", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=running.variables, capture_output=True, text=True, timeout=60, check=False
    )


async def test_a_wrong_secret_is_told_as_such(tmp_path, s3):
    wrong = {name.upper(): value for name, value in s3.options.items()} | {"AWS_SECRET_ACCESS_KEY": "wrong"}
    with suite(tmp_path, "registry", "dataset", SLUICE_BLOBS_URL=URL, **wrong) as broken:
        async with broken.channel("dataset") as channel:
            mine = Uploads(channel, "projects/default")
            await mine.create()
            upload = await mine.open(content := jsonl(10))
            fault = await asyncio.wait_for(fault_of(mine.write(*chunks(upload.name, content))), 10)
    assert isinstance(fault, Unavailable) and "AWS_ACCESS_KEY_ID" in fault.message
