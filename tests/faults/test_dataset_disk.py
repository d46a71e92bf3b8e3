"""The disk below the blobs is full, or flips a bit: callers are told, nothing acknowledged goes."""

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from kit.rpc.errors import Exhausted
from sluice import Client
from sluice.dataset import v1 as dataset
from tests.pipeline import until
from tests.suite import suite

pytestmark = [pytest.mark.prove, pytest.mark.timeout(150)]


@pytest.fixture
def disk(tmp_path):
    """A disk of its own for blobs; its size can be changed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or mount(folder, "size=26m").returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mount(folder, options):
    return subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )


def resize(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def written(path, count, size):
    rows = {f"question {number}": os.urandom(size // 2).hex() for number in range(count)}
    path.write_text("".join(json.dumps({"prompt": key, "completion": value}) + "\n" for key, value in rows.items()))
    return rows


def read(client, version):
    messages = client.datasets.open(version).polars()["messages"].to_list()
    return {turns[0]["content"]: turns[1]["content"] for turns in messages}


def test_a_full_disk_is_told_to_callers_and_nothing_acknowledged_is_lost(tmp_path, disk):
    with suite(tmp_path, "registry", "dataset", SLUICE_BLOBS_URL=f"file://{disk}/blobs") as running:
        with Client(running.address("dataset"), running.key, "default") as client:
            small = written(tmp_path / "small.jsonl", 4, 1 << 20)
            client.datasets.upload(name="small", path=tmp_path / "small.jsonl", task_type="sft")
            large = written(tmp_path / "large.jsonl", 30, 1 << 20)
            with pytest.raises(Exhausted, match="disk of the service is full"):
                client.datasets.upload(name="large", path=tmp_path / "large.jsonl", task_type="sft")
            assert read(client, "small@1") == small
            resize(disk, "size=38m")  # the pieces fit, the parts do not
            log = running.home / "logs" / "dataset.log"
            with ThreadPoolExecutor(1) as pool:
                again = pool.submit(persist, client, tmp_path / "large.jsonl")
                until(lambda: len(waits(log)) >= 3, "a check that is put off", 60)
                assert waits(log)[:3] == [1.0, 2.0, 4.0], "it is not parsed anew every second"
                assert read(client, "small@1") == small
                resize(disk, "size=200m")
                assert again.result(60).version == 1
            assert read(client, "large@1") == large


def persist(client, path):
    """Sends a file again as long as the disk is full: a check that tries to store a part takes room for a moment."""
    while True:
        try:
            return client.datasets.upload(name="large", path=path, task_type="sft")
        except Exhausted:
            time.sleep(0.2)


def waits(log):
    """How long each check that met a fault of the machine was put off."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if '"upload_put_off"' in line]
    return [line["wait_s"] for line in lines if "wait_s" in line]


def test_a_flipped_bit_is_known_before_anybody_reads_it(tmp_path):
    settings = {"SLUICE_SCRUB_EVERY_S": "0.5", "SLUICE_SCRUB_BYTES_PER_S": "1e9"}
    with suite(tmp_path, "registry", "dataset", **settings) as running:
        with Client(running.address("dataset"), running.key, "default") as client:
            rows = written(tmp_path / "rows.jsonl", 40, 1 << 20)
            client.datasets.upload(name="d", path=tmp_path / "rows.jsonl", task_type="sft")
            flip(max((running.home / "blobs" / "projects" / "default" / "data").rglob("*/*"), key=size_of))
            [found] = until(lambda: client.storage.damaged(), "damage that is told", 30)
            assert found.damage == dataset.DAMAGE_SET_ASIDE
            assert list(found.dataset_versions) == ["projects/default/datasets/d/versions/1"]
            events = client.events("dataset").list(subject="")
            assert [event.subject for event in events if event.type.endswith("blob.damaged")] == [found.name]
            client.datasets.upload(name="again", path=tmp_path / "rows.jsonl", task_type="sft")  # the same parts
            until(lambda: not client.storage.damaged(), "a blob that is whole again", 30)
            assert read(client, "d@1") == rows


def size_of(path):
    return path.stat().st_size


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) - 100] ^= 4
    path.write_bytes(content)
