"""The look through all stored blobs: damage is told once and with what it hits, and only what nobody can name goes."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlmodel import select

from kit.blobs import FileKek, open_store
from kit.rpc.errors import Corrupt
from kit.store import OutboxRow
from services.dataset import damage
from services.dataset.damage import ScrubRow
from services.dataset.media import assets
from services.dataset.media.assets import BesideRow, NamedRow
from services.dataset.parts import DoomedRow, PartRow
from services.dataset.scrubber import Scrubber
from services.dataset.store import UPLOADS, PieceRow
from sluice.dataset import v1 as dataset

PROJECT = "projects/p"
VERSION = f"{PROJECT}/datasets/d/versions/"
UPLOAD = f"{PROJECT}/datasets/d/uploads/"
DAY = timedelta(days=1)


class World:
    def __init__(self, database, folder):
        self.database, self.folder = database, folder
        self.blobs = open_store(f"file://{folder}", FileKek(b"k" * 32))
        self.scrubber = Scrubber(database, self.blobs, bytes_per_s=0, every_s=7 * 86400)
        self.begun = database.clock()

    async def put(self, content, space=PROJECT):
        async def once() -> AsyncIterator[bytes]:
            yield content

        return (await self.blobs.put(space, once())).digest

    async def part(self, digest, *owners):
        async def work(unit):
            for place, owner in enumerate(owners):
                split = {"train": 1, "validation": 0, "test": 0}
                unit.session.add(
                    PartRow(owner=owner, place=place, project=PROJECT, digest=digest, size_bytes=1, **split)
                )

        await self.database.transact(work)

    def damage(self, digest, space=PROJECT):
        """Flips the last bit of what is stored of a blob."""
        envelope = (self.folder / space / "blobs").rglob(digest.removeprefix("sha256:"))
        object_id = next(envelope).read_text().split('"object_id":"')[1][:32]
        [path] = (self.folder / space / "data").rglob(object_id)
        path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))

    async def later(self, passed):
        """A look after so much time."""
        self.database.clock = lambda: self.begun + passed
        await self.scrubber.step()

    async def known(self):
        async with self.database.read() as session:
            return await damage.page(session, PROJECT, 100, "")

    async def told(self):
        async with self.database.read() as session:
            rows = (await session.exec(select(OutboxRow))).all()
        return [row.data_json for row in rows if row.type == "sluice.dataset.v1.blob.damaged"]

    def files(self, space):
        return [path for path in (self.folder / space).rglob("*") if path.is_file()]

    async def upload(self, name, state):
        wanted = dataset.Upload(name=UPLOAD + name, state=state)
        await self.database.transact(lambda unit: UPLOADS.insert(unit, wanted))


@pytest.fixture
def world(database, tmp_path):
    return World(database, tmp_path)


async def test_damage_is_told_once_with_the_versions_that_it_hits(world):
    good, bad = [await world.put(content) for content in (b"good", b"bad")]
    await world.part(bad, VERSION + "1", VERSION + "2", UPLOAD + "u")
    await world.part(good, VERSION + "3")
    world.damage(bad)
    await world.scrubber.step()
    [found], token, scrub = await world.known()
    assert (found.digest, found.damage, found.space) == (bad, dataset.DAMAGE_SET_ASIDE, PROJECT) and not token
    assert list(found.dataset_versions) == [VERSION + "1", VERSION + "2"]
    assert (scrub.blobs, scrub.damaged_blobs) == (1, 1) and scrub.HasField("end_time")
    await world.later(8 * DAY)
    [told] = await world.told()
    assert bad in told and VERSION + "2" in told and "DAMAGE_SET_ASIDE" in told
    await world.put(b"bad")
    await world.later(9 * DAY)  # a look at what is aside, not through everything
    assert (await world.known())[0] == [] and len(world.files(f"{PROJECT}/quarantine")) == 1
    await world.later(16 * DAY)
    assert not world.files(f"{PROJECT}/quarantine") and len(world.files(f"{PROJECT}/data")) == 2


async def test_an_asset_hits_the_versions_whose_rows_name_it(world):
    space = assets.space_of(PROJECT)
    part, image = await world.put(b"part"), await world.put(b"image", space)
    await world.part(part, VERSION + "1")
    row = NamedRow(project=PROJECT, part=part, kind="images", digest=image)

    async def name(unit):
        unit.session.add(row)

    await world.database.transact(name)
    world.damage(image, space)
    await world.scrubber.step()
    [found] = (await world.known())[0]
    assert (found.digest, found.space, found.damage) == (image, space, dataset.DAMAGE_SET_ASIDE)
    await world.blobs.delete(space, image)
    await world.later(8 * DAY)
    [found] = (await world.known())[0]
    assert (found.digest, found.space) == (image, space)
    assert list(found.dataset_versions) == [VERSION + "1"]


async def test_old_assets_that_nobody_names_are_doomed_and_other_blobs_are_not(world):
    space = assets.space_of(PROJECT)
    orphan, named, _ = [await world.put(each, each_space) for each, each_space in
        ((b"orphan", space), (b"named", space), (b"an adapter", PROJECT))]  # fmt: skip

    async def name(unit):
        unit.session.add(BesideRow(upload=UPLOAD + "u", path="1.png", project=PROJECT, digest=named, size_bytes=5))

    async def doomed():
        async with world.database.read() as session:
            return [(row.project, row.digest) for row in (await session.exec(select(DoomedRow))).all()]

    await world.database.transact(name)
    await world.scrubber.step()
    assert await doomed() == []  # it may be about to be listed
    await world.later(8 * DAY)
    assert await doomed() == [(space, orphan)]


async def test_what_a_reader_set_aside_is_told_between_the_looks(world):
    bad = await world.put(b"bad")
    await world.part(bad, VERSION + "1")
    await world.scrubber.step()
    world.damage(bad)
    with pytest.raises(Corrupt):
        _ = [piece async for piece in world.blobs.open(PROJECT, bad)]
    await world.later(timedelta(minutes=5))
    assert [each.digest for each in (await world.known())[0]] == [bad]


async def test_what_a_version_names_and_is_not_there_is_told(world):
    gone, there = [await world.put(content) for content in (b"gone", b"there")]
    await world.part(gone, VERSION + "1")
    await world.part(there, VERSION + "2")
    await world.part(f"sha256:{'0' * 64}", UPLOAD + "u")  # named, and about to be stored
    await world.blobs.delete(PROJECT, gone)
    await world.scrubber.step()
    assert [(each.digest, each.damage) for each in (await world.known())[0]] == [(gone, dataset.DAMAGE_MISSING)]
    await world.put(b"gone")
    await world.later(DAY)
    assert (await world.known())[0] == []


async def test_a_key_that_is_not_held_is_told_and_nothing_moved(world):
    stranger = open_store(f"file://{world.folder}", FileKek(b"s" * 32))

    async def once():
        yield b"foreign"

    digest = (await stranger.put(PROJECT, once())).digest
    await world.scrubber.step()
    assert [(each.digest, each.damage) for each in (await world.known())[0]] == [(digest, dataset.DAMAGE_UNREADABLE)]
    assert b"".join([piece async for piece in stranger.open(PROJECT, digest)]) == b"foreign"


async def test_it_goes_on_where_it_was_broken_off(world):
    digests = sorted([await world.put(b"%d" % number) for number in range(30)])
    async with world.database.begin() as unit:
        place = f"{PROJECT}/blobs/{digests[19][7:9]}/{digests[19][7:]}"
        unit.session.add(ScrubRow(begun=unit.now, place=place, blobs=20, size_bytes=40))
    await world.scrubber.step()
    assert (await world.known())[2].blobs == 30


async def test_only_the_spaces_of_our_uploads_that_are_over_are_cleared(world):
    over, live, former = [f"{PROJECT}/uploads/{name}" for name in ("over", "live", "former")]
    others = [f"{PROJECT}/uploads/evaluation-1", f"{PROJECT}/uploads/unknown", "projects/q/uploads/over"]
    for space in (over, live, former, *others, PROJECT):
        await world.put(b"x", space)
    await world.upload("over", dataset.UPLOAD_STATE_FAILED)
    await world.upload("live", dataset.UPLOAD_STATE_OPEN)
    await world.upload("former", dataset.UPLOAD_STATE_FAILED)
    async with world.database.begin() as unit:  # a feed took its rows back
        unit.session.add(PieceRow(upload=UPLOAD + "next", start=0, digest="sha256:", size=1, space=former))
    await world.scrubber.step()
    assert world.files(over), "something may come still"
    await world.later(8 * DAY)
    assert not world.files(over)
    assert all(world.files(space) for space in (live, former, *others, PROJECT))


async def test_data_whose_key_was_never_written_goes_and_a_blob_that_nobody_names_stays(world):
    nobodys, lost = [await world.put(content) for content in (b"nobody's", b"lost")]
    await world.blobs.objects.remove(f"{PROJECT}/blobs/{lost[7:9]}/{lost[7:]}")
    await world.scrubber.step()
    assert len(world.files(PROJECT)) == 3
    await world.later(8 * DAY)
    assert len(world.files(PROJECT)) == 2 and await world.blobs.stat(PROJECT, nobodys) is not None


async def test_bytes_are_read_at_the_pace_that_was_asked_for(world):
    for number in range(4):
        await world.put(os.urandom(100_000) + b"%d" % number)
    slow = Scrubber(world.database, world.blobs, bytes_per_s=1_000_000, every_s=1e6)
    began = asyncio.get_running_loop().time()
    await slow.step()
    assert asyncio.get_running_loop().time() - began > 0.3
