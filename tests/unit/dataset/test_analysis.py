"""Looking at whole versions, with real processes and encrypted files: what is read, what is kept, what is refused."""

import asyncio
import json
import os
import random
import signal

import pyarrow as pa
import pytest

from kit.blobs import FileKek, open_store
from kit.rpc.errors import Exhausted, NotFound
from services.dataset import checks, parts, store
from services.dataset.analysis import Analyst, Rows
from services.dataset.media import assets
from services.dataset.uploads.comparing import count_new, shares_ids
from services.dataset.uploads.judging import StoredParts
from services.dataset.uploads.news import New, UncomparedError, UncountedError, rows_new
from sluice.dataset import v1 as dataset
from sluice.rows.columns import CANONICAL
from sluice.rows.parts import encode
from sluice.types import v1 as types


class World:
    """Versions whose parts were stored without an upload, and how many bytes of blobs were read."""

    def __init__(self, database, folder, spare):
        self.database = database
        self.blobs = open_store(f"file://{folder / 'blobs'}", FileKek.create(folder / "kek", home=folder / "home"))
        self.stored = StoredParts(database, self)
        self.read = []
        self.analyst = Analyst(database, self, self.stored, spare)

    def open(self, project, digest, start=0, length=None):
        self.read.append((digest, length))
        return self.blobs.open(project, digest, start, length)

    def put(self, *args, **more):
        return self.blobs.put(*args, **more)

    async def version(self, number, *texts):
        """A version with a part for each list of texts."""
        name = f"projects/p/datasets/d/versions/{number}"
        for place, each in enumerate(texts):
            rows = pa.Table.from_pylist([{"text": text} for text in each], CANONICAL["pretrain"])
            part = encode(rows)
            await self.stored.keep(name, place, checks.Part(part.content, part.split_rows))
        async with self.database.read() as session:
            found = await parts.of(session, name)
        version = dataset.DatasetVersion(name=name, version=number, digest=parts.digest_of(found))
        version = await self.database.transact(lambda unit: store.insert_version(unit, version, f"upload {number}"))
        return Rows(version, found)

    @property
    def read_bytes(self):
        return sum(length for _, length in self.read)


@pytest.fixture
def world(database, tmp_path, spare):
    return World(database, tmp_path, spare)


async def all_of(events):
    return [event async for event in events]


def numbered(first, last):
    """Texts that no compression makes short."""
    return [f"{number} {random.Random(number).randbytes(200).hex()}" for number in range(first, last)]


async def test_a_comparison_reads_nothing_but_keys_of_parts_that_are_not_shared(world):
    shared, old, new = numbered(0, 2000), numbered(2000, 3000), numbered(2500, 3300)
    before, after = await world.version(1, shared, old), await world.version(2, shared, new)
    *told, found = await all_of(world.analyst.difference(after, before))
    found = json.loads(found)
    assert (found["added"]["rows"], found["removed"]["rows"]) == (300, 500)
    assert (found["added"]["first"][0], found["removed"]["first"][0]) == (2501, 2001)
    assert told[-1].total == 1800 and told[-1].done <= 1800
    kept = f"projects/p/profiles/{after.version.digest[7:]}.{before.version.digest[7:]}.difference.1"
    async with world.database.read() as session:
        assert len(await parts.of(session, kept)) == 1
    assert {digest for digest, _ in world.read} == {before.parts[1].digest, after.parts[1].digest}
    assert world.read_bytes < (before.parts[1].size_bytes + after.parts[1].size_bytes) / 2


async def test_a_part_that_is_there_once_more_is_compared(world):
    rows = numbered(0, 10)
    once, twice = await world.version(1, rows), await world.version(2, rows, rows)
    *_, found = await all_of(world.analyst.difference(twice, once))
    assert json.loads(found)["added"]["first"] == list(range(11, 21))


async def test_what_was_found_is_kept_until_it_is_lost(world):
    version = await world.version(1, numbered(0, 50))
    *_, first = await all_of(world.analyst.statistics(version))
    for part in version.parts:
        await world.blobs.delete(part.project, part.digest)
    assert await all_of(world.analyst.statistics(version)) == [first], "nothing of the rows is read again"
    with pytest.raises(NotFound):
        await all_of(world.analyst.duplicates(version))

    version = await world.version(2, numbered(50, 100))
    *_, first = await all_of(world.analyst.duplicates(version))
    async with world.database.read() as session:
        (kept,) = await parts.of(session, f"projects/p/profiles/{version.version.digest[7:]}.duplicates.1")
    await world.blobs.delete(kept.project, kept.digest)
    for _ in range(2):
        *_, again = await all_of(world.analyst.duplicates(version))
        assert again == first


async def test_nothing_is_kept_of_rows_that_were_forgotten_meanwhile(world):
    version = await world.version(1, numbered(0, 50))
    events = world.analyst.duplicates(version)
    async for event in events:
        if isinstance(event, bytes):
            break
        now = dataset.DatasetVersion()
        now.CopyFrom(version.version)
        now.digest = f"sha256:{'0' * 64}"
        await world.database.transact(lambda unit, now=now: store.update_version(unit, now))
    await events.aclose()
    async with world.database.read() as session:
        assert await parts.of(session, f"projects/p/profiles/{version.version.digest[7:]}.duplicates.1") == []


async def test_images_are_as_large_as_is_known_of_them(world):
    shown = [{"text": str(number), "images": [f"sha256:{number % 3}"]} for number in range(9)]
    schema = CANONICAL["pretrain"].append(pa.field("images", pa.list_(pa.string())))
    part = encode(pa.Table.from_pylist(shown, schema))
    name = "projects/p/datasets/d/versions/1"
    await world.stored.keep(name, 0, checks.Part(part.content, part.split_rows))
    async with world.database.read() as session:
        found = await parts.of(session, name)
    version = dataset.DatasetVersion(name=name, version=1, digest=parts.digest_of(found))
    await world.database.transact(lambda unit: store.insert_version(unit, version, "upload"))

    async def know(unit):
        for number, width in enumerate((640, 800, 0)):  # nothing is known of the third
            about = {"parent": "projects/p/datasets/d", "project": "projects/p", "size_bytes": 1, "height": 480}
            unit.session.add(assets.AssetRow(digest=f"sha256:{number}", width=width, **about))
        await assets.name(unit, "projects/p", found[0].digest, {"images": [f"sha256:{number}" for number in range(3)]})

    await world.database.transact(know)
    *_, told = await all_of(world.analyst.statistics(Rows(version, found)))
    images = json.loads(told)["images"]
    assert (images["assets"]["max"], images["width"]["count"], images["width"]["p5"], images["width"]["max"]) == (
        1,
        6,
        640,
        800,
    )
    assert images["pixels"]["max"] == 800 * 480


async def test_one_at_a_time_and_who_waited_gets_what_the_other_found(world):
    version = await world.version(1, numbered(0, 500))
    one, other = await asyncio.gather(*(all_of(world.analyst.duplicates(version)) for _ in range(2)))
    assert one[-1] == other[-1]
    assert other[0] == types.Progress(total=500, phase="waiting") and len(other) == 2


async def test_a_look_that_takes_too_much_is_refused(world, spare):
    version = await world.version(1, numbered(0, 5))
    analyst = Analyst(world.database, world, world.stored, spare, max_memory_bytes=20 << 20)
    with pytest.raises(Exhausted, match="more than 20 MiB of memory; make versions of fewer rows") as refused:
        await all_of(analyst.duplicates(version))
    assert refused.value.reason_name == "LIMIT_EXCEEDED"


@pytest.mark.parametrize("killed", [["nursery"], ["process", "process"]])
async def test_a_look_that_the_system_ends_is_tried_once_more(world, spare, killed):
    version, open_blob = await world.version(1, numbered(0, 5)), world.open
    taken, left = [], list(killed)

    class Spare:
        def take(self):
            taken.append(spare.take())
            return taken[-1]

    def opened(*args):
        if left:
            process = taken[-1].process
            os.kill(spare.prepare().pid if left.pop() == "nursery" else process.pid, signal.SIGKILL)
            process.wait()
        return open_blob(*args)

    world.open = opened
    events = all_of(Analyst(world.database, world, world.stored, Spare()).duplicates(version))
    if len(killed) == 1:
        assert json.loads((await events)[-1])["rows"] == 5
    else:
        with pytest.raises(Exhausted, match="ran out of memory, twice") as refused:
            await events
        assert refused.value.reason_name == "OUT_OF_MEMORY"
    assert len(taken) == 2


async def test_nothing_goes_on_when_nobody_waits_any_more(world):
    version = await world.version(1, numbered(0, 500))
    events = world.analyst.duplicates(version)
    await anext(events)
    await events.aclose()
    async with asyncio.timeout(20):
        *_, found = await all_of(world.analyst.duplicates(version))
    assert json.loads(found)["rows"] == 500


async def test_new_rows_are_those_whose_content_is_nowhere_before(world):
    before = await world.version(1, numbered(0, 100), numbered(100, 200))
    added = await world.version(2, numbered(100, 200), [*numbered(190, 210), *numbered(205, 210)])
    assert await world.analyst.count_new(before, added.parts) == 15


async def test_no_process_is_begun_for_a_version_that_is_gone(world):
    spare, gone, upload = checks.Spare(), "projects/p/datasets/d/versions/9", "projects/p/datasets/d/uploads/u"
    analyst = Analyst(world.database, world, world.stored, spare)
    assert await count_new(world.database, analyst, gone, upload) is None
    assert await shares_ids(world.database, analyst, UncomparedError(gone, ""), upload)
    assert spare.nursery is None


def test_a_commit_wants_rows_compared_with_the_newest_version():
    assert rows_new("", 7, None) == 7
    assert rows_new("d/versions/2", 7, New("d/versions/2", 3)) == 3
    assert rows_new("d/versions/2", 7, New("d/versions/2", None)) is None
    for counted in (None, New("d/versions/1", 3)):
        with pytest.raises(UncountedError) as wanted:
            rows_new("d/versions/2", 7, counted)
        assert wanted.value.version == "d/versions/2"
