"""The upload supervisor on a private database and real encrypted files: what a crash and a fault of ours leave."""

import hashlib
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from kit.blobs import FileKek, open_store
from services.dataset import checks, commands, domain, store
from services.dataset.servicer import UploadServicer
from services.dataset.supervisor import UploadSupervisor
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors

ROWS = b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'


class World:
    def __init__(self, database, folder):
        self.database, self.folder = database, folder
        self.blobs = open_store(f"file://{folder / 'blobs'}", FileKek.create(folder / "kek", home=folder / "home"))
        self.spare = checks.Spare()
        self.supervisor = UploadSupervisor(database, self.blobs, self.spare)
        self.servicer = UploadServicer(database, self.blobs, self.spare)

    async def uploaded(self, rows=ROWS, parent="projects/p/datasets/d"):
        request = dataset.CreateUploadRequest(
            parent=parent, file_name="a.jsonl", size_bytes=len(rows), digest=digest_of(rows)
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

    async def get(self, name):
        async with self.database.read() as session:
            return await store.UPLOADS.get(session, name)

    def staged(self, name):
        folder = self.folder / "blobs" / domain.staging(name)
        return [path for path in folder.rglob("*") if path.is_file()]


def digest_of(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
async def world(database, tmp_path):
    wanted = dataset.Dataset(display_name="d", task_type="sft")
    await database.transact(lambda unit: commands.create_dataset(unit, "projects/p", wanted))
    world = World(database, tmp_path)
    yield world
    await world.spare.close()


async def test_pieces_are_deleted_by_whoever_looks_after_a_crash(world):
    name = await world.uploaded()
    await world.database.transact(lambda unit: commands.commit_upload(unit, name))
    await world.database.transact(lambda unit: commands.commit_version(unit, name, checks.Outcome(True, 0, [], {})))
    assert world.staged(name), "the process died right after the commit"
    await world.supervisor.step()
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
    world.database.clock = lambda: begun + domain.UPLOAD_LIVES + timedelta(seconds=1)
    await world.supervisor.step()
    assert (await world.get(name)).state == dataset.UPLOAD_STATE_EXPIRED
    assert world.staged(name) == []
