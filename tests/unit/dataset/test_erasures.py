"""Erasures on a private database and real encrypted files: what is gone, what stays, and what comes back."""

import hashlib
import json
import uuid
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from thread_checks import ThreadSpare

from kit.auth import Principal
from kit.blobs import FileKek, open_store
from kit.rpc.call import Call, acting
from kit.rpc.errors import Denied, Invalid, StateConflict
from services.dataset import checks, commands, parts, store
from services.dataset.erasure import commands as erasure_commands
from services.dataset.erasure import domain as erasures
from services.dataset.erasure.erasing import PredicateStore
from services.dataset.governance import audit, lineage
from services.dataset.servicer import DatasetVersionServicer, ErasureServicer, UploadServicer
from services.dataset.supervisor import UploadSupervisor
from services.dataset.uploads.staged import Recent
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.types import v1 as types

PROJECT = "projects/p"
PARENT = f"{PROJECT}/datasets/d"
ADMIN = Principal("projects/p/apiKeys/admin", frozenset({(PROJECT, int(types.ROLE_ADMIN))}))


def rows(*groups, mark=""):
    """A row for each group, in JSON lines."""
    return b"".join(
        json.dumps({"id": f"{mark}{number}", "group": group, "text": f"text {mark} {number} of {group}"}).encode()
        + b"\n"
        for number, group in enumerate(groups)
    )


class World:
    def __init__(self, database, folder, spare):
        self.database, self.folder = database, folder
        kek = folder / "kek"
        opened = FileKek.load(kek, home=folder / "home") if kek.exists() else FileKek.create(kek, home=folder / "home")
        self.blobs = open_store(f"file://{folder / 'blobs'}", opened)
        self.spare = spare
        self.supervisor = UploadSupervisor(database, self.blobs, self.spare, recent := Recent())
        self.uploads = UploadServicer(database, self.blobs, self.spare, recent)
        self.versions = DatasetVersionServicer(database, self.blobs)
        self.erasures = ErasureServicer(database, PredicateStore(database, self.blobs))

    async def dataset(self, name="d"):
        wanted = dataset.Dataset(display_name=name, task_type="pretrain")
        await self.database.transact(lambda unit: commands.create_dataset(unit, PROJECT, wanted))

    async def upload(self, content, parent=PARENT, look=True, **wishes):
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        request = dataset.CreateUploadRequest(
            parent=parent, file_name="a.jsonl", size_bytes=len(content), digest=digest, **wishes
        )
        upload = await self.database.transact(lambda unit: commands.create_upload(unit, request, "me"))

        async def chunks() -> AsyncIterator[dataset.WriteUploadRequest]:
            yield dataset.WriteUploadRequest(name=upload.name, data=content, crc32=zlib.crc32(content))

        await self.uploads.WriteUpload(chunks(), None)
        await self.database.transact(lambda unit: commands.commit_upload(unit, upload.name))
        if look:
            await self.look()
        async with self.database.read() as session:
            return await store.UPLOADS.get(session, upload.name)

    async def look(self):
        await self.supervisor.step()
        await self.supervisor.settle()
        await self.supervisor.erasures.settle()
        await self.supervisor.tidy()

    async def order(self, column="group", *values, parent=PARENT, **wishes):
        request = dataset.CreateErasureRequest(
            parent=parent, column=column, values=values, reason="asked to", request_id=str(uuid.uuid4()), **wishes
        )
        with acting(Call(ADMIN, "/CreateErasure")):
            return (await self.erasures.CreateErasure(request, None)).erasure.name

    async def forget(self, *values, column="group", **wishes):
        name = await self.order(column, *values, **wishes)
        await self.look()
        return await self.erasure(name)

    async def erasure(self, name):
        return (await self.erasures.GetErasure(dataset.GetErasureRequest(name=name), None)).erasure

    async def version(self, number, parent=PARENT):
        async with self.database.read() as session:
            return await store.get_version(session, f"{parent}/versions/{number}")

    async def read(self, number, parent=PARENT, **wanted):
        request = dataset.ReadDatasetVersionRequest(name=f"{parent}/versions/{number}", **wanted)
        answers = [answer.rows async for answer in self.versions.ReadDatasetVersion(request, None)]
        return [json.loads(line) for line in b"".join(answers).splitlines()]

    async def groups(self, number, parent=PARENT):
        return [row["group"] for row in await self.read(number, parent)]

    async def stored(self):
        async with self.database.read() as session:
            return await erasures.stored_parts(session, PARENT)

    def again(self):
        """The same after a restart of the service."""
        return World(self.database, self.folder, self.spare)

    def files(self):
        return sorted(path for path in (self.folder / "blobs").rglob("*") if path.is_file())


@pytest.fixture
async def world(database, tmp_path):
    world = World(database, tmp_path, ThreadSpare())
    await world.dataset()
    return world


async def test_the_rows_go_from_every_version_and_the_others_stay(world):
    await world.upload(rows("P1", "P2", "P17", mark="a"))
    await world.upload(rows("P3", "P17", "P17", mark="b"), append=True)
    await world.upload(rows("P4", mark="c"))
    before = [await world.version(number) for number in (1, 2, 3)]
    erasure = await world.forget("P17")
    assert (erasure.state, erasure.rows_removed) == (dataset.ERASURE_STATE_DONE, 3)
    assert [await world.groups(number) for number in (1, 2, 3)] == [["P1", "P2"], ["P1", "P2", "P3"], ["P4"]]
    after = [await world.version(number) for number in (1, 2, 3)]
    assert [(each.row_count, each.rows_added) for each in after] == [(2, 2), (3, 1), (1, 1)]
    assert [sum(each.split_rows.values()) for each in after] == [2, 3, 1]
    assert after[2] == before[2] and not after[2].erasures
    assert {
        change.dataset_version: (change.old_digest, change.digest, change.rows_removed) for change in erasure.changes
    } == {
        old.name: (old.digest, new.digest, lost) for old, new, lost in zip(before[:2], after[:2], (1, 3), strict=True)
    }
    assert [list(each.erasures) for each in after[:2]] == [[erasure.name]] * 2


async def test_nothing_of_them_is_left_in_the_blob_folder(world):
    await world.upload(rows("P2", mark="a"))
    there = world.files()
    await world.upload(rows("P17", "P18", mark="b"))
    old = set(world.files()) - set(there)
    await world.forget("P17", "P18")
    assert not old & set(world.files())
    async with world.database.read() as session:
        now = await parts.of(session, f"{PARENT}/versions/2")
        named = {
            part.digest.removeprefix("sha256:")
            for number in (1, 2)
            for part in await parts.of(session, f"{PARENT}/versions/{number}")
        }
        assert await parts.doomed(session, world.database.clock()) == []
    assert {path.name for path in world.files() if "blobs" in path.relative_to(world.folder / "blobs").parts} == named
    assert len(now) == 1 and await world.read(2) == []


async def test_what_another_dataset_has_too_stays_there_and_is_told(world):
    await world.dataset("e")
    other = f"{PROJECT}/datasets/e"
    for parent in (PARENT, other):
        await world.upload(rows("P1", "P17"), parent)
    erasure = await world.forget("P17")
    assert list(erasure.also_in) == [other]
    assert await world.groups(1) == ["P1"] and await world.groups(1, other) == ["P1", "P17"]
    assert list((await world.forget("P17", parent=other)).also_in) == []
    assert await world.groups(1, other) == ["P1"]


async def test_rows_that_were_put_aside_go_as_well(world):
    wrong = b'{"group": "P17", "txt": 1}\n{"group": "P18", "txt": 1}\n{"group": "P17", "text": 7}\nno JSON of P17\n'
    upload = await world.upload(rows("P1") + wrong, on_error=dataset.ON_ERROR_QUARANTINE)
    assert upload.quarantined_rows == 4
    erasure = await world.forget("P17")
    assert (erasure.rows_removed, erasure.quarantined_rows_removed) == (0, 3)
    request = dataset.ReadQuarantineRequest(name=upload.name)
    left = b"".join([answer.rows async for answer in world.uploads.ReadQuarantine(request, None)])
    assert b"P18" in left and b"P17" not in left
    async with world.database.read() as session:
        assert (await store.UPLOADS.get(session, upload.name)).quarantined_rows == 1


async def test_a_dry_run_counts_and_changes_nothing(world):
    await world.upload(rows("P1", "P17", "P17"))
    before = await world.version(1)
    erasure = await world.forget("P17", dry_run=True)
    assert (erasure.state, erasure.rows_removed, erasure.dry_run) == (dataset.ERASURE_STATE_DONE, 2, True)
    assert [(change.dataset_version, change.rows_removed) for change in erasure.changes] == [(before.name, 2)]
    assert await world.version(1) == before and len(await world.read(1)) == 3
    upload = await world.upload(rows("P17", mark="b"))
    assert (await world.version(2)).row_count == 1 and not upload.forgotten_rows


async def test_forgotten_rows_do_not_come_back_and_that_is_told(world):
    content = rows("P1", "P17", "P17")
    await world.upload(content)
    first = await world.forget("P17")
    again = await world.upload(content)
    assert (again.state, again.forgotten_rows) == (dataset.UPLOAD_STATE_COMMITTED, 2)
    assert await world.groups(2) == ["P1"]
    aside = await world.upload(rows("P2") + b'{"group": "P17", "txt": 1}\n', on_error=dataset.ON_ERROR_QUARANTINE)
    assert (aside.forgotten_rows, aside.quarantined_rows) == (1, 0)
    nothing = await world.upload(rows("P17"))
    assert nothing.state == dataset.UPLOAD_STATE_FAILED and nothing.forgotten_rows == 1
    second = await world.forget("P17", dry_run=True)
    assert (second.rows_removed, list(second.forgotten_by)) == (0, [first.name])


async def test_the_tombstone_holds_no_value_and_whoever_knows_it_can_ask(world):
    await world.upload(rows("P17"))
    erasure = await world.forget("P17")
    async with world.database.read() as session:
        salt = await erasures.salt_of(session, PARENT)
    assert list(erasure.predicate_digests) == [erasures.digest_of(salt, "group", "P17")]
    assert b"P17" not in erasure.SerializeToString()
    raw = b"".join(path.read_bytes() for path in world.folder.rglob("*") if path.is_file())
    assert b"P17" not in raw
    other = await world.order("group", "P17", dry_run=True)
    assert b"P17" not in (await world.erasure(other)).SerializeToString()


async def test_ids_and_tags_and_the_names_that_uploads_gave_them(world):
    content = b'{"case": "c1", "patient_id": "P1", "text": "a", "tags": ["x", "y"]}\n{"case": "c2", "text": "b"}\n'
    await world.upload(content, columns={"patient_id": "group", "case": "id"})
    assert (await world.forget("P1", column="patient_id", dry_run=True)).rows_removed == 1
    assert (await world.forget("y", column="tags", dry_run=True)).rows_removed == 1
    assert (await world.forget("c2", column="case")).column == "id"
    assert [row["text"] for row in await world.read(1)] == ["a"]
    with pytest.raises(Invalid, match="--map name"):
        await world.order("name", "P1")


async def test_only_the_owner_and_administrators_may(world):
    await world.upload(rows("P1"))
    somebody = Principal("projects/p/apiKeys/x", frozenset({(PROJECT, int(types.ROLE_ALGORITHM))}))
    request = dataset.CreateErasureRequest(parent=PARENT, column="group", values=["P1"], reason="r")
    with acting(Call(somebody, "/CreateErasure")), pytest.raises(Denied, match="does not own"):
        await world.erasures.CreateErasure(request, None)


async def test_a_reader_is_told_when_rows_go_while_it_reads(world):
    await world.upload(rows("P1", mark="a"))
    await world.upload(rows("P17", "P2", mark="b"), append=True)
    old = await world.version(2)
    request = dataset.ReadDatasetVersionRequest(name=old.name)
    found, fetch, _ = await world.versions._stored(request.name, "")
    await world.forget("P17")
    assert await fetch(found[0].digest), "what is shared with no forgotten row goes on"
    with pytest.raises(StateConflict, match="forgotten while it was read") as told:
        await fetch(found[1].digest)
    assert told.value.reason == errors.ERROR_REASON_ROWS_FORGOTTEN
    with pytest.raises(StateConflict, match="its digest is") as told:
        await world.read(2, digest=old.digest)
    assert told.value.reason == errors.ERROR_REASON_ROWS_FORGOTTEN
    assert len(await world.read(2, digest=(await world.version(2)).digest)) == 2


async def test_a_damaged_part_ends_it_with_nothing_changed(database, tmp_path):
    world = World(database, tmp_path, checks.Spare())  # a task that is broken off takes a process that can be killed
    await world.dataset()
    await world.upload(rows("P17"))
    before = await world.version(1)
    for path in world.files():
        if "data" in path.relative_to(world.folder / "blobs").parts:
            path.write_bytes(path.read_bytes()[:-1] + b"x")
    erasure = await world.forget("P17")
    assert (erasure.state, erasure.failure.reason) == (dataset.ERASURE_STATE_FAILED, errors.ERROR_REASON_CORRUPT_BLOB)
    assert "nothing was forgotten" in erasure.failure.message and await world.version(1) == before
    assert not (await world.upload(rows("P17", mark="b"))).forgotten_rows
    await world.spare.close()


@pytest.mark.parametrize("stage", ["ordered", "rewritten", "applied"])
async def test_what_was_broken_off_is_brought_to_its_end_by_the_next(world, stage):
    await world.upload(rows("P1", "P17", mark="a"))
    name, old = await world.order("group", "P17"), set(world.files())
    erasing = world.supervisor.erasures._erasing
    if stage == "rewritten":
        found = await world.stored()
        predicate = await PredicateStore(world.database, world.blobs).get(name)
        assert await erasing._found(await world.erasure(name), found, predicate, 0)
    elif stage == "applied":
        await erasing._apply(await world.erasure(name))
        assert (await world.erasure(name)).state == dataset.ERASURE_STATE_SHREDDING
        assert await world.groups(1) == ["P1"] and old & set(world.files())
    await world.again().look()
    erasure = await world.erasure(name)
    assert (erasure.state, erasure.rows_removed, await world.groups(1)) == (dataset.ERASURE_STATE_DONE, 1, ["P1"])
    assert not old & set(world.files()) and len(world.files()) == 2, "the part that is left, and its key"


async def test_an_upload_that_waits_for_its_check_comes_in_without_them(world):
    await world.upload(rows("P1", "P17", mark="a"))
    waiting = await world.upload(rows("P2", "P17", mark="b"), look=False)
    erasure = await world.forget("P17")
    await world.look()
    async with world.database.read() as session:
        assert (await store.UPLOADS.get(session, waiting.name)).forgotten_rows == 1
    assert erasure.version_count == 1 and await world.groups(2) == ["P2"]


async def test_what_was_found_out_about_a_version_goes_with_its_rows(world):
    await world.upload(rows("P1", "P17"))
    digest = (await world.version(1)).digest.removeprefix("sha256:")
    owners = [f"{PROJECT}/profiles/{name}.statistics.1" for name in (digest, "0" * 64, f"{'1' * 64}.{digest}")]
    for owner in owners:
        await world.supervisor.stored.replace(owner, owner.encode())
    await world.forget("P17")
    async with world.database.read() as session:
        assert [bool(await parts.of(session, owner)) for owner in owners] == [False, True, False]


async def test_parts_that_come_while_it_searches_are_looked_through_too(world):
    await world.upload(rows("P1", "P17", mark="a"))
    await world.upload(rows("P2", "P17", mark="b"))
    erasure = await world.erasure(await world.order("group", "P17"))
    found = await world.stored()
    predicate = await PredicateStore(world.database, world.blobs).get(erasure.name)
    changes = await world.supervisor.erasures._erasing._found(erasure, found[:1], predicate, 0)
    seen = {found[0].digest}

    async def apply(unit):
        return await erasure_commands.apply(unit, erasure.name, changes, {}, seen)

    assert await world.database.transact(apply) is False
    await world.look()
    assert [await world.groups(number) for number in (1, 2)] == [["P1"], ["P2"]]


async def test_old_versions_go_by_age_but_not_the_newest_nor_what_is_used(world):
    for number in range(4):
        await world.upload(rows("P1", mark=str(number)))
    newest, names = await world.version(4), [f"{PARENT}/versions/{number}" for number in (1, 2, 3, 4)]

    async def govern(unit):
        parent = await store.DATASETS.get(unit.session, PARENT)
        parent.retention_days = 30
        await store.DATASETS.update(unit, parent)
        await lineage.begin_job(unit, f"{PROJECT}/trainingJobs/1", names[2])

    await world.database.transact(govern)
    now = world.database.clock()
    world.database.clock = lambda: now + timedelta(days=31)
    await audit.Audit(world.database).begin(Call(ADMIN, "/ReadRecordBatches"), PARENT, names[1])
    old = set(world.files())
    await world.again().look()
    with pytest.raises(StateConflict, match="retention"):
        await world.read(1)
    assert len(await world.read(2)) == len(await world.read(3)) == 1 and await world.version(4) == newest
    assert len(old - set(world.files())) == 2, "its part and the key of that"
    request = dataset.ListErasuresRequest(parent=PARENT)
    (tombstone,) = (await world.erasures.ListErasures(request, None)).erasures
    assert (tombstone.state, tombstone.rows_removed, tombstone.column) == (dataset.ERASURE_STATE_DONE, 1, "")
    assert "30 days" in tombstone.reason and (await world.version(1)).row_count == 1


async def test_which_models_saw_the_rows(world):
    await world.upload(rows("P1", "P17"))
    await world.upload(rows("P2", "P3", mark="b"))
    first, second = [await world.version(number) for number in (1, 2)]

    async def note(unit):
        for model, version, base in (
            ("m/versions/1", first, ""),
            ("m/versions/2", second, ""),
            ("n/versions/1", second, "m/versions/1"),
        ):
            name = f"{PROJECT}/models/{model}"
            await lineage.note_model(unit, name, f"{PROJECT}/models/{base}" if base else "", unit.now)
            use = dataset.ModelUse(
                model_version=name,
                dataset_version=version.name,
                dataset_digest=version.digest,
                seen=dataset.SEEN_TRAINED,
                source=f"{PROJECT}/trainingJobs/{model[0]}",
            )
            await lineage.note_use(unit, use, unit.now)

    await world.database.transact(note)
    erasure = await world.forget("P17")
    saw = {(use.model_version.rsplit("models/")[1], use.seen) for use in erasure.model_uses}
    assert saw == {("m/versions/1", dataset.SEEN_TRAINED), ("n/versions/1", dataset.SEEN_INHERITED)}
    clean = await world.version(1)

    async def later(unit):
        use = dataset.ModelUse(
            model_version=f"{PROJECT}/models/m/versions/3",
            dataset_version=clean.name,
            dataset_digest=clean.digest,
            seen=dataset.SEEN_TRAINED,
        )
        await lineage.note_use(unit, use, unit.now)

    await world.database.transact(later)
    assert len((await world.erasure(erasure.name)).model_uses) == 2, "it was trained on what was left"
