"""Weights of imports that broke off: gone after a week, but for those that a version has or an import takes up."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from kit.blobs import FileKek, open_store
from services import registry as service
from services.registry import commands, store
from services.registry.catalog import Catalog
from services.registry.sweeping import IMPORT_LIVES, Sweeper
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types
from tests.migrated import migrated

PROJECT = "projects/p"
START = datetime(2026, 11, 22, tzinfo=UTC)


class World:
    """A registry's files on a clock of the test's."""

    def __init__(self, folder):
        self.now = START
        self.blobs = open_store(f"file://{folder / 'blobs'}", FileKek(b"k" * 32))

    async def open(self):
        self.database = await migrated(service, clock=lambda: self.now)
        self.sweeper = Sweeper(self.database, self.blobs)

    async def bring(self, path, content=b"weights"):
        """As an import does with a file that has come."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        file = types.ArtifactFile(path=path, digest=digest, size_bytes=len(content))
        brought = await self.blobs.stat(PROJECT, digest) is None
        await self.database.transact(lambda unit: store.note_import(unit, PROJECT, file, brought))
        return await self.put(content)

    async def put(self, content=b"weights"):
        """As whoever stores something does."""

        async def pieces():
            yield content

        return (await self.blobs.put(PROJECT, pieces())).digest

    async def pass_by(self, time=IMPORT_LIVES):
        """Time, and then a look."""
        self.now += time + timedelta(seconds=1)
        await self.sweeper.step()

    async def there(self, *digests):
        """Those that are stored and known to be."""
        async with self.database.read() as session:
            known = await store.stored_files(session, PROJECT, digests)
        return [each for each in digests if each in known and await self.blobs.stat(PROJECT, each)]


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    await made.open()
    yield made
    await made.database.close()


async def test_weights_that_nobody_takes_up_go_after_a_week_and_come_again(world):
    digest = await world.bring("model.safetensors")
    await world.pass_by(IMPORT_LIVES / 2)
    assert await world.there(digest) == [digest]
    await world.pass_by()
    assert await world.there(digest) == []
    assert await world.blobs.stat(PROJECT, digest) is None
    await world.bring("model.safetensors")
    await world.pass_by(IMPORT_LIVES / 2)
    assert await world.there(digest) == [digest]


async def test_a_blob_that_cannot_go_keeps_no_other_and_is_tried_again(world):
    class Failing:
        """Of two deletions the first fails."""

        def __init__(self, blobs):
            self.blobs, self.asked = blobs, []

        async def delete(self, project, digest):
            self.asked.append(digest)
            if len(self.asked) == 1:
                raise OSError(5, "Input/output error")
            await self.blobs.delete(project, digest)

    both = [await world.bring("model.safetensors", content) for content in (b"one", b"two")]
    world.sweeper.blobs = Failing(world.blobs)
    await world.pass_by()
    (stays,) = await world.there(*both)
    assert stays == world.sweeper.blobs.asked[0] and len(world.sweeper.blobs.asked) == 2
    await world.sweeper.step()
    assert await world.there(*both) == []


async def test_weights_that_an_import_names_again_stay_as_long_as_new_ones(world):
    digest = await world.bring("model.safetensors")
    for name in (lambda unit: store.touch(unit, PROJECT, [digest]), None):
        world.now += IMPORT_LIVES * 0.75
        await (world.database.transact(name) if name else world.bring("other.safetensors"))
        await world.sweeper.step()
        assert await world.there(digest) == [digest]
    await world.pass_by()
    assert await world.there(digest) == []


async def test_what_a_version_has_stays_whether_it_came_before_or_after_the_import(world):
    before, after = (f"sha256:{hashlib.sha256(each).hexdigest()}" for each in (b"before", b"after"))
    await world.database.transact(lambda unit: store.hold(unit, PROJECT, [before]))
    for content in (b"before", b"after"):
        await world.bring("model.safetensors", content)
    await world.database.transact(lambda unit: store.hold(unit, PROJECT, [after]))
    await world.pass_by(IMPORT_LIVES * 10)
    assert await world.there(before, after) == [before, after]


async def test_small_files_stay_for_what_a_job_left_may_have_them_too(world):
    digest = await world.bring("tokenizer.json", b"{}")
    await world.pass_by(IMPORT_LIVES * 10)
    assert await world.there(digest) == [digest]


async def test_what_somebody_else_had_stored_before_stays(world):
    digest = await world.put()
    assert await world.bring("model.safetensors") == digest
    await world.pass_by(IMPORT_LIVES * 10)
    assert await world.there(digest) == [digest]


@pytest.mark.parametrize(
    "said", [{"reproduces": f"{PROJECT}/trainingJobs/first"}, {"kind": types.ARTIFACT_KIND_PACKAGE}]
)
async def test_what_a_job_leaves_that_becomes_no_version_stays(world, said):
    digest = await world.bring("model.safetensors")
    event = trainer.TrainingJobSucceeded(
        training_job=f"{PROJECT}/trainingJobs/j", reproduces=said.get("reproduces", "")
    )
    event.result.artifact.kind = said.get("kind", types.ARTIFACT_KIND_FULL)
    event.result.artifact.files.add(path="model.safetensors", digest=digest, size_bytes=7)
    await world.database.transact(lambda unit: commands.register_training(unit, Catalog.built_in(), event))
    await world.pass_by(IMPORT_LIVES * 10)
    assert await world.there(digest) == [digest]


async def test_those_that_cannot_go_keep_no_later_ones(world):
    class Failing:
        """Those of the first day cannot go."""

        async def delete(self, project, digest):
            if digest in stuck:
                raise OSError(5, "Input/output error")
            gone.append(digest)

    stuck, gone = [f"sha256:{number:064x}" for number in range(4)], []
    late = [f"sha256:{number:064x}" for number in range(10, 13)]
    for digests in (stuck, late):
        rows = [store.LooseRow(project=PROJECT, digest=each, time=world.now) for each in digests]

        async def insert(unit, rows=rows, digests=digests):
            await store.note_files(unit, PROJECT, digests)
            unit.session.add_all(rows)

        await world.database.transact(insert)
        world.now += timedelta(seconds=1)
    world.sweeper = Sweeper(world.database, Failing(), page=2)
    await world.pass_by()
    assert sorted(gone) == late
    async with world.database.read() as session:
        assert await store.stored_files(session, PROJECT, [*stuck, *late]) == set(stuck)


async def test_a_unit_that_fails_after_the_bytes_are_gone_leaves_no_file_known(world):
    class Breaking:
        """Deletes, and then the unit fails, as at its commit."""

        async def delete(self, project, digest):
            await blobs.delete(project, digest)
            raise RuntimeError("the database went away")

    blobs, digest = world.blobs, await world.bring("model.safetensors")
    world.sweeper.blobs = Breaking()
    with pytest.raises(RuntimeError):
        await world.pass_by()
    async with world.database.read() as session:
        assert not await store.stored_files(session, PROJECT, [digest]), "so an import sends it again"


async def test_what_is_named_between_the_strike_and_the_deletion_stays(world):
    digest = await world.bring("model.safetensors")
    world.now += IMPORT_LIVES * 2
    async with world.database.read() as session:
        (file,) = await store.loose(session, world.now)
    assert await world.database.transact(lambda unit: store.strike(unit, file, world.now))
    await world.database.transact(lambda unit: store.hold(unit, PROJECT, [digest]))
    assert not await world.database.transact(lambda unit: world.sweeper.delete(unit, file))
    assert await world.there(digest) == [digest]
