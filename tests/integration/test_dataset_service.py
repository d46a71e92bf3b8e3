"""The dataset service as it runs: real gRPC, NATS, files and encrypted blobs."""

import asyncio
import gzip
import hashlib
import time
import uuid

import grpc
import pytest

from kit.rpc.errors import Denied, Invalid, NotFound, Stale, StateConflict
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.rows import SPLITS
from sluice.types import v1 as types
from tests.folders import contents, files
from tests.integration.uploads import CHUNK, Uploads, chunks, fault_of, jsonl
from tests.suite import suite


@pytest.fixture
async def mine(running, project):
    """Uploads into the dataset `d` of the test's project."""
    async with running.channel("dataset") as channel:
        uploads = Uploads(channel, project)
        await uploads.create()
        yield uploads


async def test_a_file_becomes_a_version_and_its_splits_are_the_whole(mine):
    content = jsonl(300)
    upload = await mine.send(content)
    assert upload.state == dataset.UPLOAD_STATE_COMMITTED and upload.dataset_version.endswith("/versions/1")
    request = dataset.GetDatasetVersionRequest(name=f"{mine.project}/datasets/d/versions/latest")
    version = (await mine.versions.GetDatasetVersion(request)).dataset_version
    rows = await mine.read(version.name)
    assert version.digest.startswith("sha256:") and version.rows_added == version.row_count == 300
    assert version.source_digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    parts = {split: (await mine.read(version.name, split)).splitlines() for split in SPLITS}
    assert {split: len(part) for split, part in parts.items()} == dict(version.split_rows)
    assert (
        sorted(row for part in parts.values() for row in part) == sorted(rows.splitlines())
        and len(rows.splitlines()) == 300
    )
    assert (await mine.read(version.name, max_rows=7)).splitlines() == rows.splitlines()[:7]


async def test_nothing_readable_is_left_on_disk(running, mine):
    secret = "zanzibar-quarterly-figures"
    upload = await mine.send(jsonl(500, mark=secret))
    refused = await mine.send(jsonl(50, mark=secret) + b"{}\n", "broken.jsonl")
    assert (upload.state, refused.state) == (dataset.UPLOAD_STATE_COMMITTED, dataset.UPLOAD_STATE_FAILED)
    words = (secret.encode(), b'"question":')  # a version keeps the names of what was read, and nothing of a row
    assert not [path for path, held in contents(files(running.folder)) if any(word in held for word in words)]


async def test_after_a_break_it_goes_on_where_it_stopped(mine):
    content = jsonl(11, size=CHUNK)  # 11 MiB: a piece is full with 8 of them
    upload = await mine.open(content)
    parts, sent = chunks(upload.name, content), asyncio.Event()

    async def broken():
        for part in parts[:9]:
            yield part
        sent.set()
        await asyncio.Event().wait()

    call = mine.uploads.WriteUpload(broken())
    await sent.wait()
    request = dataset.GetUploadRequest(name=upload.name)
    stored = 9 * CHUNK  # all that was sent: the last does not wait for others for long
    while (await mine.uploads.GetUpload(request)).upload.committed_bytes != stored:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    call.cancel()
    fault = await fault_of(mine.write(parts[0]))
    assert fault.reason == errors.ERROR_REASON_WRONG_OFFSET and fault.metadata == {"committed_bytes": str(stored)}
    await mine.write(*chunks(upload.name, content, start=stored))
    committed = await mine.commit(upload.name)
    assert committed.state == dataset.UPLOAD_STATE_COMMITTED and committed.rows_checked == 11
    rows = await mine.read(committed.dataset_version)
    assert len(rows) > 11 * CHUNK


async def test_a_chunk_that_is_wrong_is_refused_and_nothing_of_it_kept(mine):
    content = jsonl(50)
    upload = await mine.open(content)
    first, second = chunks(upload.name, content, size=len(content) // 2)[:2]
    corrupted = dataset.WriteUploadRequest(name=upload.name, offset=0, data=first.data, crc32=first.crc32 ^ 1)
    stranger = dataset.WriteUploadRequest(name=f"{upload.name}0", offset=second.offset, data=b"a", crc32=0)
    unnamed = dataset.WriteUploadRequest(data=first.data, crc32=first.crc32)
    longer = chunks(upload.name, content + b"more")
    for parts, kind, reason in (
        ([corrupted], Invalid, errors.ERROR_REASON_CHECKSUM_MISMATCH),
        ([second], StateConflict, errors.ERROR_REASON_WRONG_OFFSET),
        ([first, first], StateConflict, errors.ERROR_REASON_WRONG_OFFSET),
        ([first, stranger], Invalid, errors.ERROR_REASON_INVALID_FIELD),
        ([unnamed], Invalid, errors.ERROR_REASON_INVALID_FIELD),
        ([], Invalid, errors.ERROR_REASON_INVALID_FIELD),
        (longer, StateConflict, errors.ERROR_REASON_SIZE_MISMATCH),
    ):
        fault = await fault_of(mine.write(*parts))
        assert (type(fault), fault.reason) == (kind, reason), fault
    fault = await fault_of(mine.commit(upload.name))
    assert fault.reason == errors.ERROR_REASON_SIZE_MISMATCH
    await mine.write(*chunks(upload.name, content))
    assert (await mine.commit(upload.name)).state == dataset.UPLOAD_STATE_COMMITTED


async def test_another_digest_than_was_announced(mine):
    upload = await mine.send(jsonl(5), digest=f"sha256:{'0' * 64}")
    assert upload.state == dataset.UPLOAD_STATE_FAILED
    assert upload.failure.reason == errors.ERROR_REASON_CHECKSUM_MISMATCH and "again" in upload.failure.message
    fault = await fault_of(mine.commit(upload.name))
    assert isinstance(fault, StateConflict)


async def test_row_seven_is_named_and_its_content_is_not(mine):
    lines = jsonl(20).splitlines(keepends=True)
    lines[6] = b'{"messages": [{"role": "pirate", "content": "treasure"}]}\n'
    upload = await mine.send(b"".join(lines))
    assert upload.state == dataset.UPLOAD_STATE_FAILED and upload.failure.reason == errors.ERROR_REASON_INVALID_ROWS
    assert [violation.row for violation in upload.violations] == [7] and "row 7" in upload.failure.message
    assert b"treasure" not in upload.SerializeToString()
    request = dataset.ListDatasetVersionsRequest(parent=f"{mine.project}/datasets/d")
    assert not (await mine.versions.ListDatasetVersions(request)).dataset_versions


@pytest.mark.parametrize("content", [b"\n\n", b"\x1f\x8b\x08 cut", b"\xff\xfe{}"])
async def test_files_without_rows_or_sense_are_refused(mine, content):
    upload = await mine.send(content, "rows.jsonl.gz" if content[:1] == b"\x1f" else "rows.jsonl")
    assert upload.state == dataset.UPLOAD_STATE_FAILED and upload.failure.message


async def test_a_compressed_file_is_read(mine):
    upload = await mine.send(gzip.compress(jsonl(30)), "rows.jsonl.gz")
    assert upload.rows_checked == 30


@pytest.mark.parametrize("file_name", ["rows.docx", "rows.jsonl.rar", "../rows.jsonl"])
async def test_a_name_that_is_no_known_format(mine, file_name):
    assert isinstance(await fault_of(mine.open(b"a", file_name)), Invalid)


async def test_a_repeat_gets_the_first_answer(mine):
    request_id, content = str(uuid.uuid4()), jsonl(3)
    first, again = [await mine.open(content, request_id=request_id) for _ in range(2)]
    assert first == again
    fault = await fault_of(mine.open(content + b"\n", request_id=request_id))
    assert fault.reason == errors.ERROR_REASON_REQUEST_ID_REUSED


async def test_an_etag_that_is_not_the_present_one(mine):
    name = f"{mine.project}/datasets/d"
    present = (await mine.datasets.GetDataset(dataset.GetDatasetRequest(name=name))).dataset

    def change(text):
        wanted = dataset.Dataset(name=name, description=text, etag=present.etag)
        return mine.datasets.UpdateDataset(dataset.UpdateDatasetRequest(dataset=wanted))

    assert (await change("first")).dataset.description == "first"
    assert isinstance(await fault_of(change("second")), Stale)


async def test_pages_tell_each_dataset_once(mine):
    for number in range(6):
        await mine.create(f"e{number}")
    names, token = [], ""
    while True:
        request = dataset.ListDatasetsRequest(parent=mine.project, page_size=3, page_token=token)
        answer = await mine.datasets.ListDatasets(request)
        names += [each.name.rsplit("/", 1)[-1] for each in answer.datasets]
        if not (token := answer.next_page_token):
            break
        other = dataset.ListDatasetsRequest(parent="projects/default", page_token=token)
        fault = await fault_of(mine.datasets.ListDatasets(other))
        assert fault.reason == errors.ERROR_REASON_INVALID_PAGE_TOKEN
    assert names == ["d", *(f"e{number}" for number in range(6))]


async def test_a_project_is_closed_to_those_without_a_role_in_it(running, mine, keys, project):
    await mine.send(jsonl(3))
    name = f"{project}/datasets/d"
    _, outsider = await keys(types.ROLE_ALGORITHM, "projects/elsewhere")
    _, auditor = await keys(types.ROLE_AUDITOR)
    _, client = await keys(types.ROLE_INFERENCE)
    for secret, may_get, may_create in ((outsider, False, False), (auditor, True, False), (client, False, False)):
        async with running.channel("dataset", secret) as channel:
            theirs = Uploads(channel, project)
            await until_known(theirs, name)
            get = theirs.datasets.GetDataset(dataset.GetDatasetRequest(name=name))
            if may_get:
                assert (await get).dataset.name == name
            else:
                assert isinstance(await fault_of(get), Denied)
            assert may_create or isinstance(await fault_of(theirs.create("x")), Denied)
            assert may_create or isinstance(await fault_of(theirs.open(b"a")), Denied)
    async with running.channel("dataset", outsider) as channel:
        theirs = Uploads(channel, project)
        stranger = theirs.datasets.GetDataset(dataset.GetDatasetRequest(name="projects/elsewhere/datasets/d"))
        assert isinstance(await fault_of(stranger), NotFound)
        stream = theirs.write(*chunks(f"{name}/uploads/u", b"a"))
        assert isinstance(await fault_of(stream), Denied)
        assert isinstance(await fault_of(theirs.read(f"{name}/versions/1")), Denied)


async def until_known(uploads, name, within_s=20.0):
    """Waits until the key of these uploads is known here."""
    begin = time.monotonic()
    while True:
        try:
            await uploads.datasets.GetDataset(dataset.GetDatasetRequest(name=name))
            return
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.UNAUTHENTICATED:
                return
        assert time.monotonic() - begin < within_s
        await asyncio.sleep(0.01)


async def test_killed_between_checks_and_commit_it_makes_exactly_one_version(tmp_path):
    with suite(tmp_path, "registry", "dataset", SLUICE_FAILPOINT="dataset_before_version:kill") as broken:
        pid = broken.pids["dataset"]
        async with broken.channel("dataset") as channel:
            mine = Uploads(channel, "projects/default")
            await mine.create()
            upload = await mine.open(content := jsonl(100))
            await mine.write(*chunks(upload.name, content))
            await mine.uploads.CommitUpload(dataset.CommitUploadRequest(name=upload.name))
            await asyncio.to_thread(broken.wait_restarted, "dataset", pid)
        broken.stop()
        broken.environ = {}
        broken.start()
        async with broken.channel("dataset") as channel:
            mine = Uploads(channel, "projects/default")
            committed = await mine.end(upload.name)
            request = dataset.ListDatasetVersionsRequest(parent="projects/default/datasets/d")
            versions = (await mine.versions.ListDatasetVersions(request)).dataset_versions
            assert [each.name for each in versions] == [committed.dataset_version]
            assert len((await mine.read(committed.dataset_version)).splitlines()) == 100
