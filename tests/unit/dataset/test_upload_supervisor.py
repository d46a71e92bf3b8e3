"""The upload supervisor on a private database and real encrypted files: what a crash and a fault of ours leave."""

import hashlib
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from kit.blobs import FileKek, open_store
from services.dataset import checks, commands, store
from services.dataset.servicer import UploadServicer
from services.dataset.supervisor import UploadSupervisor
from services.dataset.uploads import domain as uploads
from services.dataset.uploads.staged import Recent
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors

ROWS = b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'


class World:
    def __init__(self, database, folder, spare):
        self.database, self.folder = database, folder
        self.blobs = open_store(f"file://{folder / 'blobs'}", FileKek.create(folder / "kek", home=folder / "home"))
        self.supervisor = UploadSupervisor(database, self.blobs, spare, recent := Recent())
        self.servicer = UploadServicer(database, self.blobs, spare, recent)

    async def uploaded(self, rows=ROWS, parent="projects/p/datasets/d", **wishes):
        request = dataset.CreateUploadRequest(
            parent=parent, file_name="a.jsonl", size_bytes=len(rows), digest=digest_of(rows), **wishes
        )
        upload = await self.database.transact(lambda unit: commands.create_upload(unit, request, "me"))

        async def chunks() -> AsyncIterator[dataset.WriteUploadRequest]:
            yield dataset.WriteUploadRequest(name=upload.name, data=rows, crc32=zlib.crc32(rows))

        await self.servicer.WriteUpload(chunks(), None)
        return upload.name

    async def commit(self, name):
        await self.database.transact(lambda unit: commands.commit_upload(unit, name))

    async def look(self):
        await self.supervisor.step()
        await self.supervisor.settle()
        await self.supervisor.tidy()

    async def get(self, name):
        async with self.database.read() as session:
            return await store.UPLOADS.get(session, name)

    def staged(self, name):
        folder = self.folder / "blobs" / uploads.staging(name)
        return [path for path in folder.rglob("*") if path.is_file()]


def digest_of(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
async def world(database, tmp_path, spare):
    wanted = dataset.Dataset(display_name="d", task_type="sft")
    await database.transact(lambda unit: commands.create_dataset(unit, "projects/p", wanted))
    return World(database, tmp_path, spare)


async def test_pieces_are_deleted_by_whoever_looks_after_a_crash(world):
    name = await world.uploaded()
    await world.database.transact(lambda unit: commands.commit_upload(unit, name))
    await world.database.transact(lambda unit: commands.commit_version(unit, name, checks.Outcome(True, 0, [], {})))
    assert world.staged(name), "the process died right after the commit"
    await world.supervisor.tidy()
    assert world.staged(name) == []
    async with world.database.read() as session:
        assert await store.leftovers(session) == []


async def test_an_upload_that_breaks_the_checks_fails_and_the_others_go_on(world):
    unknown = dataset.Dataset(name="projects/p/datasets/x", task_type="a release from now")
    await world.database.transact(lambda unit: store.DATASETS.insert(unit, unknown))
    names = [await world.uploaded(parent=unknown.name), await world.uploaded()]
    for name in names:
        await world.commit(name)
    await world.look()
    broken, good = [await world.get(name) for name in names]
    assert good.state == dataset.UPLOAD_STATE_COMMITTED
    assert (broken.state, broken.failure.reason) == (dataset.UPLOAD_STATE_FAILED, errors.ERROR_REASON_INTERNAL)
    assert "met a fault of the suite" in broken.failure.message


async def test_an_upload_that_nobody_finished_expires_with_its_pieces(world):
    name = await world.uploaded()
    begun = world.database.clock()
    world.database.clock = lambda: begun + uploads.UPLOAD_LIVES + timedelta(seconds=1)
    await world.supervisor.tidy()
    assert (await world.get(name)).state == dataset.UPLOAD_STATE_EXPIRED
    assert world.staged(name) == []


async def test_a_piece_that_was_damaged_on_disk_ends_the_upload(world):
    await world.commit(name := await world.uploaded())
    for path in world.staged(name):
        if "data" in path.parts:
            stored = bytearray(path.read_bytes())
            stored[len(stored) // 2] ^= 1
            path.write_bytes(stored)
    world.supervisor.recent = Recent()  # as after a restart
    await world.look()
    upload = await world.get(name)
    assert upload.state == dataset.UPLOAD_STATE_FAILED
    assert upload.failure.reason == errors.ERROR_REASON_CORRUPT_BLOB
    assert "upload the file again" in upload.failure.message


async def test_of_two_uploads_side_by_side_only_the_first_brings_new_rows(world):
    for count, rows in ((1, ROWS), (2, ROWS + ROWS.replace(b'"q"', b'"another question"'))):
        for _ in range(count):
            await world.commit(await world.uploaded(rows))
        await world.look()
    async with world.database.read() as session:
        versions, _ = await store.page_versions(session, "projects/p/datasets/d", 0, "")
    assert [(each.version, each.rows_new) for each in versions] == [(3, 0), (2, 1), (1, 1)]


def named(row_id, question):
    return ROWS.replace(b"{", b'{"id": "%s", ' % row_id.encode(), 1).replace(b'"q"', b'"%s"' % question.encode())


@pytest.mark.parametrize("base", [True, False])
async def test_of_two_appends_at_once_with_one_id_only_one_brings_its_row(world, base):
    if base:
        await world.commit(await world.uploaded(named("z", "before")))
        await world.look()
    names = [await world.uploaded(named("x", each), append=True) for each in ("one", "two")]
    names.append(await world.uploaded(named("y", "three"), append=True))
    for name in names:
        await world.commit(name)
    for _ in range(6):
        await world.look()
    ended = {dataset.UPLOAD_STATE_COMMITTED: [], dataset.UPLOAD_STATE_FAILED: []}
    for name in names:
        upload = await world.get(name)
        ended[upload.state].append(dict(upload.violation_counts))
    assert ended == {dataset.UPLOAD_STATE_COMMITTED: [{}, {}], dataset.UPLOAD_STATE_FAILED: [{"duplicate-id": 1}]}
    async with world.database.read() as session:
        assert (await store.page_versions(session, "projects/p/datasets/d", 0, ""))[0][0].row_count == 2 + base
