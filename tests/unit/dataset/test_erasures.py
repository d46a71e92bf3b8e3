"""Erasures on a private database and real encrypted files: what is gone, what stays, and what comes back."""

from datetime import timedelta

import pytest
from erasure_world import ADMIN, PARENT, PROJECT, World, rows
from sqlmodel import select

from kit.auth import Principal
from kit.rpc.call import Call, acting
from kit.rpc.errors import Corrupt, Denied, Invalid, StateConflict
from kit.store import OutboxRow
from services.dataset import damage, parts, store
from services.dataset.erasure import commands as erasure_commands
from services.dataset.erasure import domain as erasures
from services.dataset.erasure.erasing import PredicateStore
from services.dataset.erasure.supervisor import ErasureSupervisor
from services.dataset.events import HANDLERS
from services.dataset.feeds import commands as feeds_commands
from services.dataset.feeds.store import FEEDS
from services.dataset.governance import audit, lineage
from services.dataset.scrubber import Scrubber
from services.dataset.servicer import DamagedBlobServicer, DatasetServicer
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.events import v1 as events
from sluice.registry import v1 as registry
from sluice.types import v1 as types


def key(id_, *roles):
    return Principal(f"projects/p/apiKeys/{id_}", frozenset((PROJECT, int(role)) for role in roles))


@pytest.fixture
async def world(database, tmp_path, spare):
    world = World(database, tmp_path, spare)
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


async def test_rows_that_were_put_aside_are_known_by_all_names_that_files_gave(world):
    await world.upload(rows("P1").replace(b'"group"', b'"patient"'), columns={"patient": "group"})
    wrong = b'{"group": "ward 3", "pid": "P17", "txt": 1}\n{"pid": "P18", "txt": 1}\n'
    await world.upload(rows("P2") + wrong, columns={"pid": "group"}, on_error=dataset.ON_ERROR_QUARANTINE)
    assert (await world.forget("P17", column="patient")).quarantined_rows_removed == 1


async def test_a_dry_run_counts_and_changes_nothing(world):
    await world.upload(rows("P1", "P17", "P17"))
    before = await world.version(1)
    erasure = await world.forget("P17", dry_run=True)
    assert (erasure.state, erasure.rows_removed, erasure.dry_run) == (dataset.ERASURE_STATE_DONE, 2, True)
    assert [(change.dataset_version, change.rows_removed) for change in erasure.changes] == [(before.name, 2)]
    assert await world.version(1) == before and len(await world.read(1)) == 3
    upload = await world.upload(rows("P17", mark="b"))
    assert (await world.version(2)).row_count == 1 and not upload.forgotten_rows


async def test_rows_that_no_value_can_find_are_told(world):
    await world.upload(rows("P1", None, "P17", mark="a"))
    await world.upload(rows(None, "P2", mark="b"), append=True)  # the parts of before are not counted twice
    for dry_run in (True, False):
        assert (await world.forget("P17", dry_run=dry_run)).rows_without_column == 2
    assert (await world.forget("b0", column="id", dry_run=True)).rows_without_column == 0
    assert (await world.forget("x", column="tags", dry_run=True)).rows_without_column == 4


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


@pytest.mark.parametrize("odd", [b"", b'{"pid": 17, "text": "of seventeen"}\n'], ids=["as columns", "one by one"])
async def test_a_file_that_does_not_say_whose_its_rows_are_brings_nothing_back(world, odd):
    content = rows("P1", "P17").replace(b'"group"', b'"pid"')
    await world.upload(content, columns={"pid": "group"})
    await world.forget("P17", "17", column="pid")
    again = await world.upload(content + odd)
    assert again.forgotten_rows == 1 + bool(odd) and len(await world.read(2)) == 1
    wrong = b'{"pid": "P17", "txt": 1}\n'
    aside = await world.upload(rows("P2") + wrong, on_error=dataset.ON_ERROR_QUARANTINE)
    assert (aside.forgotten_rows, aside.quarantined_rows) == (1, 0)


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
    request = dataset.CreateErasureRequest(parent=PARENT, column="group", values=["P1"], reason="r")
    with acting(Call(key("x", types.ROLE_ALGORITHM), "/CreateErasure")), pytest.raises(Denied, match="does not own"):
        await world.erasures.CreateErasure(request, None)


async def test_to_count_rows_of_somebody_takes_the_right_to_read_them_and_is_told(world):
    request = dataset.CreateErasureRequest(parent=PARENT, column="group", values=["P1"], reason="r", dry_run=True)
    engineer, reader = key("e", types.ROLE_ENGINEERING), key("a", types.ROLE_ALGORITHM)
    with acting(Call(engineer, "/CreateErasure")), pytest.raises(Denied, match="not count them"):
        await world.erasures.CreateErasure(request, None)
    with acting(Call(reader, "/CreateErasure")):
        counting = (await world.erasures.CreateErasure(request, None)).erasure
    async with world.database.read() as session:
        entries, _ = await audit.page(session, PARENT, 0, "", False)
    told = [(each.principal, each.action.rpartition("v1.")[2]) for each in entries if each.resource == counting.name]
    assert told == [(reader.name, "erasure.created")]


async def test_a_dataset_that_the_caller_may_not_know_of_is_not_told(world):
    await world.dataset("e")
    other = f"{PROJECT}/datasets/e"
    for parent in (PARENT, other):
        await world.upload(rows("P1", "P17"), parent)

    async def close(unit):
        closed = await store.DATASETS.get(unit.session, other)
        closed.access = dataset.DATASET_ACCESS_GRANTED
        await store.DATASETS.update(unit, closed)

    await world.database.transact(close)
    name = await world.order("group", "P17", dry_run=True)
    await world.look()
    for principal, told in ((ADMIN, [other]), (key("a", types.ROLE_ALGORITHM), [])):
        with acting(Call(principal, "/GetErasure")):
            assert list((await world.erasure(name)).also_in) == told


@pytest.mark.parametrize(
    ("value", "reason", "fits"),
    [
        ("P17", "P17 asked to", False),
        ("P1", "as P17 asked", True),
        ("张三", "患者张三要求", False),
        ("a(1)", "case a(1) asked", False),
    ],
)
def test_a_reason_says_not_whose_rows_they_are(value, reason, fits):
    if fits:
        return erasures.check_reason(reason, [value])
    with pytest.raises(Invalid) as refused:
        erasures.check_reason(reason, [value])
    assert value not in refused.value.message


async def test_what_is_ordered_while_another_shreds_is_not_shredded(world):
    predicates = PredicateStore(world.database, world.blobs)
    name = erasures.new_name(PARENT)
    predicate = await predicates.put(name, "group", ["patient"], ["P17"])
    await world.supervisor.stored.shred(PROJECT)
    await world.database.transact(lambda unit: parts.add(unit, predicate))
    assert (await predicates.get(name)).values == ["P17"]


async def test_rows_that_wait_in_a_feed_do_not_wait_for_ever(world):
    wanted = dataset.Feed(display_name="f", paused=True, commit_rows=10**6)
    feed = f"{PARENT}/feeds/f"
    await world.database.transact(lambda unit: feeds_commands.create_feed(unit, PARENT, wanted, "me"))
    for number, who in enumerate((ADMIN, ADMIN, key("x"))):
        lines = rows("P17", mark=str(number)).splitlines()
        with acting(Call(who, "/AppendRows")):
            await world.database.transact(
                lambda unit, lines=lines: feeds_commands.append_rows(unit, world.blobs, feed, lines)
            )
    await world.order("group", "P17", dry_run=True)
    async with world.database.read() as session:
        assert not (await FEEDS.get(session, feed)).flushing
    await world.order("group", "P17")
    async with world.database.read() as session:
        assert (await FEEDS.get(session, feed)).flushing
        query = select(OutboxRow.principal).where(OutboxRow.type == "sluice.dataset.v1.rows.appended")
        assert list((await session.exec(query)).all()) == [ADMIN.name, key("x").name], "once of each who sent some"


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


async def test_a_damaged_part_ends_it_with_nothing_changed(world):
    await world.upload(rows("P17"))
    before = await world.version(1)
    for path in world.files():
        if "data" in path.relative_to(world.folder / "blobs").parts:
            path.write_bytes(path.read_bytes()[:-1] + b"x")
    erasure = await world.forget("P17")
    assert (erasure.state, erasure.failure.reason) == (dataset.ERASURE_STATE_FAILED, errors.ERROR_REASON_CORRUPT_BLOB)
    assert "nothing was forgotten" in erasure.failure.message and await world.version(1) == before
    assert not (await world.upload(rows("P17", mark="b"))).forgotten_rows


async def test_a_damaged_version_is_on_record_when_it_is_met_and_sound_when_its_file_came_again(world):
    content = rows("P1")
    scrubber = Scrubber(world.database, world.blobs, bytes_per_s=0, every_s=1)
    world.uploads.is_damaged, blobs = scrubber.is_damaged, DamagedBlobServicer(world.database, scrubber)
    again = dataset.CreateUploadRequest(parent=PARENT, file_name="a.jsonl", size_bytes=len(content))
    again.request_id = "0193a5c2-7d1e-7abc-8def-0123456789ab"

    async def called(method, request):
        with acting(Call(ADMIN, "/" + method.__name__)):
            return await method(request, None)

    first = (await called(world.uploads.CreateUpload, again)).upload
    await world.upload(content, begun=first)
    assert (await called(world.uploads.CreateUpload, again)).upload == first
    for path in world.files():
        if "data" in path.relative_to(world.folder / "blobs").parts:
            path.write_bytes(path.read_bytes()[:-1] + b"x")
    for _ in "once", "when it is set aside":
        with pytest.raises(Corrupt, match=f"`{PARENT}/versions/1` is damaged.*upload the file again"):
            await world.read(1)
    async with world.database.read() as session:
        [known] = await damage.DAMAGED.find(session)
    assert known.damage == dataset.DAMAGE_SET_ASIDE
    with pytest.raises(Corrupt, match="versions/1` is damaged"):
        await called(world.uploads.CreateUpload, again)
    await world.database.transact(lambda unit: damage.forget(unit, known.name))  # as if `storage check` had found it
    listing = dataset.ListDamagedBlobsRequest(parent=PROJECT)
    [listed] = (await called(blobs.ListDamagedBlobs, listing)).damaged_blobs
    assert list(listed.dataset_versions) == [f"{PARENT}/versions/1"]
    await world.upload(content)
    assert len(await world.read(1)) == len(await world.read(2)) == 1
    assert not (await called(blobs.ListDamagedBlobs, listing)).damaged_blobs
    assert (await called(world.uploads.CreateUpload, again)).upload == first


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
    await audit.Audit(world.database).begin(Call(ADMIN, "/ReadRecordBatches"), PARENT, names[1]).written
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


async def test_what_was_put_aside_goes_with_its_version_by_age_in_every_dataset(world):
    parents, firsts = [PARENT, f"{PROJECT}/datasets/e"], []
    await world.dataset("e")
    for parent in parents:
        wrong = rows("P1", mark=parent) + b'{"group": "P2", "txt": 1}\n'
        firsts.append(await world.upload(wrong, parent, on_error=dataset.ON_ERROR_QUARANTINE))
        await world.upload(rows("P3", mark=parent), parent)

    async def govern(unit):
        for parent in parents:
            kept = await store.DATASETS.get(unit.session, parent)
            kept.retention_days = 1
            await store.DATASETS.update(unit, kept)

    await world.database.transact(govern)
    now = world.database.clock()
    world.database.clock = lambda: now + timedelta(days=2)
    retiring = ErasureSupervisor(
        world.database, world.supervisor.erasures._erasing, world.supervisor._stop_checks_of, 1
    )
    await retiring.step()
    async with world.database.read() as session:
        for first in firsts:
            assert not await parts.of(session, parts.quarantine_of(first.name)), "of the second page, too"
            assert (await store.UPLOADS.get(session, first.name)).quarantined_rows == 0
    await retiring.settle()


class Counted:
    """A database, and how often it was read."""

    def __init__(self, database):
        self.database, self.clock, self.changed_in, self.reads = database, database.clock, database.changed_in, 0

    def read(self):
        self.reads += 1
        return self.database.read()


async def test_erasures_are_looked_for_when_one_was_ordered_and_not_at_every_piece(world):
    counted = Counted(world.database)
    supervisor = ErasureSupervisor(counted, world.supervisor.erasures._erasing, world.supervisor._stop_checks_of)
    await supervisor.step()
    before = counted.reads
    await world.upload(rows("P1", "P17", mark="a"), look=False)
    await supervisor.step()
    assert counted.reads == before
    await world.look()
    name = await world.order("group", "P17")
    await supervisor.step()
    await supervisor.settle()
    assert (await world.erasure(name)).state == dataset.ERASURE_STATE_DONE


async def test_prompts_that_a_model_left_of_them_go_too_also_those_that_come_late(world):
    await world.upload(rows("P1", "P17", mark="a"))
    await world.upload(rows("P2", mark="b"))
    first, second = [await world.version(number) for number in (1, 2)]
    left = {name: await world.blobs.put(PROJECT, _once(name)) for name in ("early", "other", "late")}

    async def trained(name, version):
        made = registry.ModelVersion(name=f"{PROJECT}/models/{name}/versions/1")
        made.lineage.CopyFrom(registry.Lineage(dataset_version=version.name, dataset_digest=version.digest))
        made.parity.digest = left[name].digest
        event = events.Event(time=made.create_time)
        created = registry.ModelVersionCreated(model_version=made)
        await world.database.transact(lambda unit: HANDLERS[type(created)](unit, event, created))

    await trained("early", first)
    await trained("other", second)
    await world.forget("P17")
    await trained("late", first)
    await world.supervisor.stored.shred(PROJECT)
    kept = [name for name in left if await world.blobs.stat(PROJECT, left[name].digest)]
    assert kept == ["other"]


async def _once(text):
    yield text.encode()


async def deleted(world, who=ADMIN, **wanted):
    request = dataset.DeleteDatasetRequest(name=PARENT, reason="by mistake", **wanted)
    with acting(Call(who, "/DeleteDataset")):
        return await DatasetServicer(world.database).DeleteDataset(request, None)


async def test_a_deleted_dataset_leaves_its_tombstone_and_its_name(world):
    wrong = rows("P1") + b'{"group": "P2", "txt": 1}\n'
    await world.upload(wrong, on_error=dataset.ON_ERROR_QUARANTINE)
    await world.upload(rows("P3", mark="b"), append=True)
    with pytest.raises(Denied, match="does not own"):
        await deleted(world, key("x", types.ROLE_ALGORITHM), force=True)
    with pytest.raises(StateConflict, match="versions: 2"):
        await deleted(world)
    answer = await deleted(world, force=True)
    await world.look()
    tombstone = await world.erasure(answer.erasure)
    assert (tombstone.state, tombstone.version_count) == (dataset.ERASURE_STATE_DONE, 2)
    assert (tombstone.creator, tombstone.reason) == (ADMIN.name, "by mistake")
    assert world.files() == [] and answer.dataset.HasField("delete_time")
    with pytest.raises(StateConflict, match="were deleted"):
        await world.read(2)
    for attempt in (world.dataset(), world.upload(rows("P4")), deleted(world, force=True), world.order("group", "P3")):
        with pytest.raises(StateConflict, match="its name stays"):
            await attempt
    with acting(Call(ADMIN, "/ListDatasets")):
        listed = await DatasetServicer(world.database).ListDatasets(dataset.ListDatasetsRequest(parent=PROJECT), None)
    assert not listed.datasets
    async with world.database.read() as session:
        entries, _ = await audit.page(session, PARENT, 0, "", False)
    assert (ADMIN.name, "sluice.dataset.v1.dataset.deleted") in [(each.principal, each.action) for each in entries]


async def test_what_is_in_use_is_not_deleted(world):
    await world.upload(rows("P1"))
    job, feed = f"{PROJECT}/trainingJobs/1", f"{PARENT}/feeds/f"
    steps = [
        (lambda unit: lineage.begin_job(unit, job, f"{PARENT}/versions/1"), "a training job reads version 1"),
        (lambda unit: lineage.end_job(unit, job), ""),
        (lambda unit: feeds_commands.create_feed(unit, PARENT, dataset.Feed(display_name="f"), "me"), "its feed `f`"),
        (lambda unit: FEEDS.delete(unit, feed), ""),
    ]
    for step, why in steps:
        await world.database.transact(step)
        if why:
            with pytest.raises(StateConflict, match=why):
                await deleted(world, force=True)
    waiting = await world.upload(rows("P2"), look=False)
    with pytest.raises(StateConflict, match="is being checked"):
        await deleted(world, force=True)
    await world.look()
    await world.order("group", "P9")
    with pytest.raises(StateConflict, match="being looked for"):
        await deleted(world, force=True)
    await world.look()
    assert waiting.name and (await deleted(world, force=True)).dataset.HasField("delete_time")


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
            await lineage.note_model(unit, name, f"{PROJECT}/models/{base}" if base else "", [], unit.now)
            use = dataset.ModelUse(
                model_version=name,
                dataset_version=version.name,
                dataset_digest=version.digest,
                seen=dataset.SEEN_TRAINED,
                source=f"{PROJECT}/trainingJobs/{model[0]}",
            )
            await lineage.note_use(unit, use, unit.now)
        student = f"{PROJECT}/models/student/versions/1"
        await lineage.note_model(unit, student, "", [f"{PROJECT}/models/n/versions/1"], unit.now)

    await world.database.transact(note)
    erasure = await world.forget("P17")
    saw = {(use.model_version.rsplit("models/")[1], use.seen) for use in erasure.model_uses}
    assert saw == {
        ("m/versions/1", dataset.SEEN_TRAINED),
        ("n/versions/1", dataset.SEEN_INHERITED),
        ("student/versions/1", dataset.SEEN_TAUGHT),
    }
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
    assert len((await world.erasure(erasure.name)).model_uses) == 3, "it was trained on what was left"
