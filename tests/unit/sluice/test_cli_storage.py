"""`sluice storage` on a store of this machine, without a suite; and what a suite tells of damage."""

import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from scripted_suite import Script

from kit.blobs import EncryptedBlobs, FileKek, open_store
from kit.rpc.errors import Denied
from sluice.cli import run
from sluice.dataset import v1 as dataset

VERSION = "projects/default/datasets/d/versions/3"


class Store:
    """A home as `sluice up` makes it, and blobs in it."""

    def __init__(self, folder: Path) -> None:
        self.home, self.key = folder / "home", folder / "config" / "sluice" / "kek"
        (self.home / "run").mkdir(parents=True)
        self.kek = FileKek.create(self.key, home=self.home)
        self.marker = self.home / "run" / "kek-id"
        self.marker.write_text(self.kek.key_id)
        self.digests = [self.put(b"row %d" % number) for number in range(40)]

    @property
    def blobs(self) -> EncryptedBlobs:
        return open_store(f"file://{self.home}/blobs", FileKek.load(self.key, home=self.home))

    def put(self, content: bytes) -> str:
        async def once():
            yield content

        async def put() -> str:
            return (await self.blobs.put("projects/default", once())).digest

        return asyncio.run(put())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def lines(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_key_is_rotated_and_the_former_one_retired(store, capsys):
    first = store.kek.key_id
    assert run(["storage", "rotate-key", "--json"]) == 0
    last = lines(capsys)[-1]
    assert (last["rewrapped"], last["done"], last["total"], last["damaged"]) == (40, 40, 40, [])
    second = store.kek.key_id
    assert second != first and store.marker.read_text() == second
    assert run(["storage", "keys", "--json"]) == 0
    assert [(each["key"], each["state"], each["blobs"]) for each in lines(capsys)] == [
        (first, "held", 0),
        (second, "wraps", 40),
    ]
    assert run(["storage", "retire-key", first]) == 6
    assert "on its way" in capsys.readouterr().err
    text = store.key.read_text()
    since = datetime.fromisoformat(text.split()[-1])
    store.key.write_text(text.replace(since.isoformat(), (since - timedelta(minutes=11)).isoformat()))
    assert run(["storage", "retire-key", first]) == 0
    assert "is gone from" in capsys.readouterr().err
    assert [each.key_id for each in store.kek.generations()] == [second]
    assert run(["storage", "check", "--json"]) == 0


def test_another_host_gets_the_key_before_it_wraps(store, capsys):
    assert run(["storage", "rotate-key", "--prepare", "--json"]) == 0
    [said] = lines(capsys)
    assert store.kek.key_id == store.marker.read_text() != said["waiting"]
    assert run(["storage", "keys"]) == 0
    assert "waiting" in capsys.readouterr().out
    assert run(["storage", "rotate-key", "-q"]) == 0
    assert store.kek.key_id == said["waiting"]


def test_damage_is_found_and_set_aside(store, capsys):
    [path] = (store.home / "blobs").rglob(store.digests[7].removeprefix("sha256:"))
    path.write_text("nonsense")
    assert run(["storage", "rotate-key"]) == 1
    captured = capsys.readouterr()
    assert "39 wrapped anew" in captured.err and "`sluice storage check`" in captured.err
    assert run(["storage", "check"]) == 1
    captured = capsys.readouterr()
    assert "1 damaged" in captured.out and store.digests[7] in captured.err
    assert run(["storage", "check"]) == 1, "it is still away"
    assert store.put(b"row 7") == store.digests[7]
    assert run(["storage", "check"]) == 0


def test_what_is_wrong_with_the_key_file_is_one_sentence(store, capsys, monkeypatch, tmp_path):
    other = FileKek.create(tmp_path / "other", home=store.home)
    monkeypatch.setenv("SLUICE_KEK", str(tmp_path / "other"))
    assert run(["storage", "rotate-key"]) == 2 and other.generations()[0].wraps
    assert "another key than" in capsys.readouterr().err
    monkeypatch.setenv("SLUICE_KEK", str(tmp_path / "none"))
    assert run(["storage", "keys"]) == 3
    assert "SLUICE_KEK" in capsys.readouterr().err
    monkeypatch.delenv("SLUICE_KEK")
    store.key.chmod(0o644)
    assert run(["storage", "check"]) == 2
    assert "chmod 600" in capsys.readouterr().err
    store.key.chmod(0o600)
    assert run(["storage", "retire-key", "0" * 16]) == 3
    assert store.kek.key_id in capsys.readouterr().err


def test_another_store_is_not_taken_for_the_suites(store, capsys, monkeypatch, tmp_path):
    other = f"file://{tmp_path}/other"
    (store.home / "run" / "blobs-url").write_text("")
    monkeypatch.setenv("SLUICE_BLOBS_URL", other)
    assert run(["storage", "check"]) == 2
    assert "in the home itself" in capsys.readouterr().err
    monkeypatch.delenv("SLUICE_BLOBS_URL")
    (store.home / "run" / "blobs-url").write_text(other)
    assert run(["storage", "keys", "--json"]) == 0
    assert [each["blobs"] for each in lines(capsys)] == [0], "it is the other one by now"


@pytest.fixture
def suite(address, monkeypatch):
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    monkeypatch.setenv("SLUICE_API_KEY", "sl_test")


def damage(script: Script) -> None:
    blob = dataset.DamagedBlob(name="projects/default/damagedBlobs/ab", digest="sha256:ab", space="projects/default")
    blob.damage, blob.dataset_versions[:] = dataset.DAMAGE_SET_ASIDE, [VERSION]
    blob.create_time.GetCurrentTime()
    script.damaged = [blob]


@pytest.mark.usefixtures("suite")
def test_a_suite_says_which_versions_damage_hits(script: Script, capsys):
    assert run(["storage", "damaged"]) == 0
    assert "not looked through yet" in capsys.readouterr().err
    script.scrub = dataset.Scrub(blobs=12, size_bytes=5_000_000)
    script.scrub.begin_time.GetCurrentTime()
    damage(script)
    assert run(["storage", "damaged", "--everywhere"]) == 1
    captured = capsys.readouterr()
    assert "set aside" in captured.out and "d@3" in captured.out and "12 blobs, 5.0 MB so far" in captured.err
    assert script.requests[-1].parent == "projects/-"
    assert run(["storage", "damaged", "--json"]) == 1
    assert lines(capsys)[0]["dataset_versions"] == [VERSION]


@pytest.mark.usefixtures("suite")
def test_doctor_tells_of_damage(script: Script, capsys):
    assert run(["doctor", "--grpc-port", "1", "--http-port", "1", "--json"]) in (0, 1)
    assert {each["what"]: each for each in lines(capsys)}["stored blobs"]["verdict"] == "ok"
    damage(script)
    assert run(["doctor", "--json"]) == 1
    found = {each["what"]: each for each in lines(capsys)}["stored blobs"]
    assert found["verdict"] == "wrong" and "1 dataset version" in found["found"] and "sluice storage" in found["repair"]
    script.faults["ListDamagedBlobs"] = Denied("no")
    assert run(["doctor", "--json"]) in (0, 1)
    assert "stored blobs" not in {each["what"] for each in lines(capsys)}
