"""Forgetting, restricting and recording as it runs: real gRPC, real files, and a service that dies on the way."""

import asyncio
import hashlib
import io
import json
import time
import zipfile

import grpc
import pytest
from PIL import Image

from kit.rpc.errors import Denied, NotFound, StateConflict
from sluice import Client
from sluice.dataset import v1 as dataset
from sluice.types import v1 as types
from tests.folders import contents, files
from tests.suite import suite

DONE = dataset.ERASURE_STATE_DONE
SECRET = "zebra-of-p17"


def rows(*patients, mark=""):
    return b"".join(
        json.dumps({"patient": patient, "text": f"{mark} {number} {SECRET if patient == 'P17' else ''}"}).encode()
        + b"\n"
        for number, patient in enumerate(patients)
    )


def upload(client, folder, name, content, **wishes):
    path = folder / f"{name}.jsonl"
    path.write_bytes(content)
    given = {"task_type": "pretrain", "columns": {"patient": "group"}, **wishes}
    return client.datasets.upload(name=name, path=path, **given)


def forget(client, name, *values, **wishes):
    ordered = client.erasures.create(name, "patient", values, "consent withdrawn", **wishes)
    return list(client.erasures.watch(ordered.name))[-1]


def blobs(running, project):
    """The files of stored parts and their keys; what uploads were gathered in goes by itself."""
    folder = running.home / "blobs" / project
    return {path for kind in ("data", "blobs") for path in files(folder / kind)}


def groups(client, version):
    return client.datasets.open(version, columns=["group"]).arrow().column("group").to_pylist()


@pytest.fixture
def client(running, project):
    with Client(running.address("dataset"), running.key, project) as client:
        yield client


def test_a_patient_is_forgotten_in_every_version(running, project, client, tmp_path):
    upload(client, tmp_path, "kept", rows("P1"))
    kept = blobs(running, project)
    first = upload(client, tmp_path, "d", rows("P1", "P17", mark="a"))
    second = upload(client, tmp_path, "d", rows("P17", "P2", mark="b"), append=True)
    upload(client, tmp_path, "e", rows("P1", "P17", mark="a"))
    assert forget(client, "d", "P17", dry_run=True).rows_removed == 2
    old = blobs(running, project)
    erasure = forget(client, "d", "P17")
    assert (erasure.state, erasure.rows_removed, erasure.version_count) == (DONE, 2, 2)
    assert [name.rsplit("/", 1)[-1] for name in erasure.also_in] == ["e"], "there it has to be forgotten as well"
    assert (groups(client, first.name), groups(client, second.name)) == (["P1"], ["P1", "P2"])
    assert groups(client, "e@1") == ["P1", "P17"] and groups(client, "kept@1") == ["P1"]
    assert forget(client, "e", "P17").state == DONE
    now = blobs(running, project)
    named = [path for path in now if "blobs" in path.relative_to(running.home / "blobs" / project).parts]
    assert len(named) == 3, "one for each part that is left, of which two are equal: nothing else has a key"
    assert kept <= now and not (old - kept) & now
    listed = client.erasures.list("d")
    assert [each.name for each in listed] == [erasure.name] and listed[0].reason == "consent withdrawn"
    again = upload(client, tmp_path, "d", rows("P17", "P3", mark="c"))
    assert groups(client, again.name) == ["P3"] and client.datasets.upload_of(again.name).forgotten_rows == 1
    assert not [path for path, held in contents(files(running.home)) if SECRET.encode() in held]


def png(shade):
    sink = io.BytesIO()
    Image.new("L", (12, 8), shade).save(sink, "PNG")
    return sink.getvalue()


def test_the_images_of_a_patient_go_unless_others_name_them(running, project, client, tmp_path):
    with zipfile.ZipFile(tmp_path / "chest.zip", "w") as archive:
        said = [("P1", 1), ("P17", 2), ("P17", 3), ("P2", 3)]
        lines = [{"patient": who, "image": f"{n}.png", "question": f"{who}?", "output": str(n)} for who, n in said]
        archive.writestr("rows.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        for number in (1, 2, 3):
            archive.writestr(f"{number}.png", png(number))
    given = {"task_type": "vqa", "modalities": ["image", "text"], "columns": {"patient": "group"}}
    version = client.datasets.upload(name="chest", path=tmp_path / "chest.zip", **given)
    digests = {n: f"sha256:{hashlib.sha256(png(n)).hexdigest()}" for n in (1, 2, 3)}
    assert {each.digest for each in client.datasets.assets(version.name)} == set(digests.values())
    assert forget(client, "chest", "P17").state == DONE
    opened = client.datasets.open(version.name)
    assert opened.asset(digests[1]) == png(1) and opened.asset(digests[3]) == png(3)
    with pytest.raises(NotFound):
        opened.asset(digests[2])
    keys_left = {path.name for path in blobs(running, f"{project}/uploads/assets")}
    assert {n for n in digests if digests[n].removeprefix("sha256:") in keys_left} == {1, 3}
    again = client.datasets.upload(name="chest", path=tmp_path / "chest.zip", fix=True, **given)
    assert again.forgotten_rows == 2 and {each.digest for each in client.datasets.assets(again.name)} == {
        digests[1],
        digests[3],
    }


def test_a_dataset_is_deleted_and_its_tombstone_stays(running, project, client, tmp_path):
    upload(client, tmp_path, "d", rows("P1", "P17"))
    with pytest.raises(StateConflict, match="versions: 1"):
        client.datasets.delete("d", "by mistake")
    assert client.datasets.delete("d", "by mistake", force=True).dataset.delete_time.seconds
    (tombstone,) = client.erasures.list("d")
    assert list(client.erasures.watch(tombstone.name))[-1].state == DONE
    assert client.datasets.list() == [] and not blobs(running, project)
    with pytest.raises(StateConflict, match="its name stays"):
        upload(client, tmp_path, "d", rows("P2"))


async def test_a_restricted_dataset_over_grpc(running, project, client, keys, tmp_path):
    await asyncio.to_thread(upload, client, tmp_path, "d", rows("P1", "P2"))
    name, secret = await keys(types.ROLE_ALGORITHM)
    await asyncio.to_thread(client.grants.govern, "d", access="granted")

    def tries():
        with Client(running.address("dataset"), secret, project) as theirs:
            deadline = time.monotonic() + 20
            while theirs.datasets.list():  # until the key is known there
                assert time.monotonic() < deadline
            for attempt in (lambda: theirs.datasets.get("d"), lambda: groups(theirs, "d@1")):
                with pytest.raises(NotFound):
                    attempt()
            client.grants.give("d", name)
            assert groups(theirs, "d@1") == ["P1", "P2"]
            with pytest.raises(Denied, match="may read"):
                theirs.datasets.update("d", description="mine")
            with pytest.raises(Denied, match="does not own"):
                forget(theirs, "d", "P1")
            with pytest.raises(Denied):
                theirs.records.audit("d")
            client.grants.take("d", name)
            with pytest.raises(NotFound):
                groups(theirs, "d@1")

    await asyncio.to_thread(tries)
    reads = await asyncio.to_thread(client.records.audit, "d", reads_only=True)
    outcomes = [(each.principal == name, each.outcome) for each in reads]
    assert (True, dataset.AUDIT_OUTCOME_COMPLETE) in outcomes
    refused = dataset.AUDIT_OUTCOME_REFUSED
    entries = await asyncio.to_thread(client.records.audit, "d")
    theirs = {each.action for each in entries if each.principal == name and each.outcome == refused}
    assert theirs >= {"GetDataset", "GetDatasetVersion", "UpdateDataset", "CreateErasure"}, "for want of a right"
    assert "ListAuditEntries" in theirs, "for want of a role"


async def test_a_reader_that_goes_away_is_on_the_record(running, project, client, tmp_path):
    content = b"".join(json.dumps({"text": f"{number} " + "x" * 20_000}).encode() + b"\n" for number in range(1500))
    version = await asyncio.to_thread(upload, client, tmp_path, "d", content, columns={})
    async with running.channel("dataset") as channel:
        stub = dataset.DatasetVersionServiceStub(channel)
        stream = stub.ReadDatasetVersion(dataset.ReadDatasetVersionRequest(name=version.name))
        async for _ in stream:
            stream.cancel()
            break
        with pytest.raises((asyncio.CancelledError, grpc.RpcError)):
            await stream.read()
    deadline = time.monotonic() + 20
    while True:
        (entry,) = await asyncio.to_thread(client.records.audit, "d", reads_only=True)
        if entry.outcome != dataset.AUDIT_OUTCOME_OPEN:
            break
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert entry.outcome == dataset.AUDIT_OUTCOME_ENDED_EARLY and entry.rows < 1500
    assert entry.action == "ReadDatasetVersion" and entry.resource == version.name
    changes = [each.action for each in await asyncio.to_thread(client.records.audit, "d")]
    assert {"sluice.dataset.v1.dataset.created", "sluice.dataset.v1.dataset_version.committed"} <= set(changes)


POINTS = ["erasure_part_rewritten", "erasure_before_commit", "erasure_committed", "dataset_doomed_deleted"]


@pytest.mark.prove
def test_a_service_that_dies_at_every_edge_forgets_all_the_same(tmp_path):
    with suite(tmp_path, "registry", "dataset", SLUICE_FAILPOINT=f"{POINTS[0]}:kill") as running:
        with Client(running.address("dataset"), running.key, "default") as client:
            first = upload(client, tmp_path, "d", rows("P1", "P17", mark="a"))
            second = upload(client, tmp_path, "d", rows("P17", "P2", mark="b"), append=True)
            before = blobs(running, "projects/default")
            pid = running.pids["dataset"]
            ordered = client.erasures.create("d", "patient", ["P17"], "asked to")
        for point in [*POINTS[1:], ""]:
            running.wait_restarted("dataset", pid)
            running.stop()
            running.environ = {"SLUICE_FAILPOINT": f"{point}:kill"} if point else {}
            running.start()
            pid = running.pids["dataset"]
        with Client(running.address("dataset"), running.key, "default") as client:
            erasure = list(client.erasures.watch(ordered.name))[-1]
            assert (erasure.state, erasure.rows_removed) == (DONE, 2)
            assert (groups(client, first.name), groups(client, second.name)) == (["P1"], ["P1", "P2"])
            assert not before & blobs(running, "projects/default")
            assert len(client.erasures.list("d")) == 1
