"""Uploads on a machine at fault: a full disk, a check that the system ends, an upload that stops, a broken sweep."""

import asyncio
import hashlib
import os
import signal
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlmodel import select

from kit.blobs import EncryptedBlobs, FileKek, open_store
from kit.rpc.errors import Exhausted
from services.dataset import checks, commands, parts, store
from services.dataset.parts import DoomedRow
from services.dataset.servicer import UploadServicer
from services.dataset.supervisor import UploadSupervisor
from services.dataset.uploads import domain as uploads
from services.dataset.uploads.staged import Recent
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors

ROWS = b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'
PARENT = "projects/p/datasets/d"


class FullDisk:
    """A store whose disk is full while `full` says so; it counts how often it was tried."""

    def __init__(self, blobs: EncryptedBlobs) -> None:
        self.blobs = blobs
        self.full = False
        self.tries = 0

    def __getattr__(self, name):
        return getattr(self.blobs, name)

    async def put(self, *arguments, **named):
        self.tries += 1
        if self.full:
            raise Exhausted("the disk of the service is full; free some space there, then repeat")
        return await self.blobs.put(*arguments, **named)


class DeadlySpare(checks.Spare):
    """Gives processes that the system has ended already, so many times."""

    def __init__(self, deaths: int) -> None:
        super().__init__()
        self.deaths = deaths

    def take(self):
        checker = super().take()
        if self.deaths:
            self.deaths -= 1
            os.kill(checker.process.pid, signal.SIGKILL)
        return checker


class World:
    def __init__(self, database, folder, deaths=0):
        self.database, self.folder = database, folder
        kek = FileKek.create(folder / "kek", home=folder / "home")
        self.blobs = FullDisk(open_store(f"file://{folder / 'blobs'}", kek))
        self.spare = DeadlySpare(deaths)
        self.supervisor = UploadSupervisor(database, self.blobs, self.spare, recent := Recent(), retry_s=0.05)
        self.servicer = UploadServicer(database, self.blobs, self.spare, recent)

    async def uploaded(self, rows=ROWS, size=0):
        digest = f"sha256:{hashlib.sha256(rows).hexdigest()}"
        request = dataset.CreateUploadRequest(
            parent=PARENT, file_name="a.jsonl", size_bytes=size or len(rows), digest=digest
        )
        upload = await self.database.transact(lambda unit: commands.create_upload(unit, request, "me"))
        await self.write(upload.name, rows)
        return upload.name

    async def write(self, name, rows):
        async def chunks() -> AsyncIterator[dataset.WriteUploadRequest]:
            yield dataset.WriteUploadRequest(name=name, data=rows, crc32=zlib.crc32(rows))

        await self.servicer.WriteUpload(chunks(), None)

    async def commit(self, name):
        await self.database.transact(lambda unit: commands.commit_upload(unit, name))

    async def look(self):
        await self.supervisor.step()
        await self.supervisor.settle()
        await self.supervisor.tidy()

    async def look_until(self, name, state):
        async with asyncio.timeout(20):
            while (await self.get(name)).state != state:
                await self.look()
                await asyncio.sleep(0.01)

    async def get(self, name):
        async with self.database.read() as session:
            return await store.UPLOADS.get(session, name)

    def files(self, of):
        return [path for path in (self.folder / "blobs" / of).rglob("*") if path.is_file()]


@pytest.fixture
async def make(database, tmp_path):
    """Makes a world with a dataset `d`; checks end by the system so many times."""
    wanted, worlds = dataset.Dataset(display_name="d", task_type="sft"), []
    await database.transact(lambda unit: commands.create_dataset(unit, "projects/p", wanted))

    def make(deaths=0):
        worlds.append(World(database, tmp_path, deaths))
        return worlds[-1]

    yield make
    for world in worlds:
        await world.spare.close()


async def test_a_full_disk_refuses_bytes_and_the_upload_goes_on_afterwards(make):
    world = make()
    world.blobs.full = True
    with pytest.raises(Exhausted):
        await world.uploaded()
    async with world.database.read() as session:
        [upload] = await store.UPLOADS.find(session)
    assert (upload.state, upload.committed_bytes) == (dataset.UPLOAD_STATE_OPEN, 0)
    world.blobs.full = False
    await world.write(upload.name, ROWS)
    await world.commit(upload.name)
    await world.look()
    assert (await world.get(upload.name)).state == dataset.UPLOAD_STATE_COMMITTED


async def test_under_a_full_disk_a_check_is_begun_ever_more_seldom(make):
    world = make()
    name = await world.uploaded()
    await world.commit(name)
    world.blobs.full, world.blobs.tries, waits = True, 0, []
    while len(waits) < 2:
        await world.look()
        if world.blobs.tries > len(waits):
            waits.append(round(world.supervisor._put_off[name][1], 3))
        await asyncio.sleep(0.01)
    assert waits == [0.1, 0.2]
    await world.look()
    assert world.blobs.tries == 2, "it is not begun before the wait is over"
    assert (await world.get(name)).state == dataset.UPLOAD_STATE_VALIDATING
    world.blobs.full = False
    await world.look_until(name, dataset.UPLOAD_STATE_COMMITTED)
    await world.look()
    assert world.supervisor._put_off == {}


async def test_a_check_that_the_system_ends_is_tried_once_more(make):
    world = make(deaths=1)
    name = await world.uploaded()
    await world.commit(name)
    await world.look()
    assert (await world.get(name)).state == dataset.UPLOAD_STATE_VALIDATING
    await world.look_until(name, dataset.UPLOAD_STATE_COMMITTED)


async def test_a_check_that_the_system_ends_twice_fails_with_the_reason(make):
    world = make(deaths=5)
    name = await world.uploaded()
    await world.commit(name)
    await world.look_until(name, dataset.UPLOAD_STATE_FAILED)
    upload = await world.get(name)
    assert (upload.state, upload.failure.reason) == (dataset.UPLOAD_STATE_FAILED, errors.ERROR_REASON_OUT_OF_MEMORY)
    assert "ran out of memory, twice" in upload.failure.message and world.spare.deaths == 3
    await world.look()
    assert not world.supervisor._killed and not world.supervisor._put_off


async def test_a_check_that_the_system_ends_before_all_has_come_waits_for_it(make):
    world = make(deaths=1)
    name = await world.uploaded(ROWS, size=2 * len(ROWS))
    await world.look()
    assert world.supervisor._stalled == {name}
    begun = world.database.clock()
    world.database.clock = lambda: begun + uploads.UPLOAD_LIVES + timedelta(seconds=1)
    await world.look()
    assert (await world.get(name)).state == dataset.UPLOAD_STATE_EXPIRED
    await world.look()
    assert world.supervisor._stalled == set(), "what is over is not remembered"


async def test_what_a_write_that_died_left_goes_with_the_pieces(make):
    world = make()
    name = await world.uploaded()
    left = world.folder / "blobs" / uploads.staging(name) / "data" / "ab" / ("ab" * 16)
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"half a piece")
    await world.commit(name)
    await world.database.transact(lambda unit: commands.end_upload(unit, name, uploads.fail_damaged))
    await world.look()
    assert world.files(uploads.staging(name)) == []


async def test_a_doomed_blob_is_forgotten_only_when_it_is_gone(make):
    world = make()
    await world.supervisor.stored.keep(f"{PARENT}/uploads/u", 0, checks.Part(b"rows", parts.NO_ROWS))
    [part] = await all_parts(world)
    await world.supervisor.stored.drop(part.owner)
    begun = world.database.clock()
    world.database.clock = lambda: begun + timedelta(hours=2)

    async def broken(project, digest):
        await type(world.blobs).__getattr__(world.blobs, "delete")(project, digest)
        raise OSError(5, "the process dies here, as it were")

    world.blobs.delete = broken
    await world.look()
    assert await doomed(world) == [part.digest]
    del world.blobs.delete
    await world.look()
    assert await doomed(world) == [] and await world.blobs.stat("projects/p", part.digest) is None


async def all_parts(world):
    async with world.database.read() as session:
        return (await session.exec(select(parts.PartRow))).all()


async def doomed(world):
    async with world.database.read() as session:
        return [row.digest for row in (await session.exec(select(DoomedRow))).all()]


async def test_what_came_of_a_sender_who_is_cut_off_need_not_come_again(make):
    world, brought = make(), asyncio.Event()
    name = await world.uploaded(ROWS, size=4 * len(ROWS))

    async def broken() -> AsyncIterator[dataset.WriteUploadRequest]:
        for number in (1, 2):
            yield dataset.WriteUploadRequest(name=name, offset=number * len(ROWS), data=ROWS, crc32=zlib.crc32(ROWS))
        brought.set()
        await asyncio.Event().wait()

    call = asyncio.create_task(world.servicer.WriteUpload(broken(), None))
    await brought.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await world.get(name)).committed_bytes == 3 * len(ROWS)
