"""Who may see, read, change and share a dataset, and that nothing goes past the guard or the record."""

from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from kit.auth import Principal
from kit.bus import EventServicer
from kit.rpc.call import Call, acting
from kit.rpc.errors import Denied, NotFound
from services.dataset import commands, store
from services.dataset.governance import audit, grants, overhearing
from services.dataset.governance.guard import Guard, Guarded
from services.dataset.servicer import DatasetServicer, GrantServicer
from sluice.dataset import v1 as dataset
from sluice.events import v1 as events
from sluice.types import v1 as types

PROJECT = "projects/p"
NAME = f"{PROJECT}/datasets/d"
READ, WRITE = dataset.RIGHT_READ, dataset.RIGHT_WRITE
CLOSED = dataset.Dataset(name=NAME, owner=f"{PROJECT}/apiKeys/owner", access=dataset.DATASET_ACCESS_GRANTED)


def key(id_, *roles, project=PROJECT, service=""):
    return Principal(f"{PROJECT}/apiKeys/{id_}", frozenset((project, int(role)) for role in roles), service)


OWNER = key("owner", types.ROLE_ALGORITHM)
ADMIN = key("admin", types.ROLE_ADMIN)
OTHER = key("other", types.ROLE_ALGORITHM)
ENGINEER = key("engineer", types.ROLE_ENGINEERING)
TRAINER = Principal("services/trainer", frozenset(), "trainer")


@pytest.mark.parametrize(
    ("principal", "rights", "reads", "writes"),
    [
        (OWNER, {}, True, True),
        (ADMIN, {}, True, True),
        (key("everywhere", types.ROLE_ADMIN, project="projects/-"), {}, True, True),
        (key("elsewhere", types.ROLE_ADMIN, project="projects/q"), {}, False, False),
        (TRAINER, {}, True, True),
        (OTHER, {}, False, False),
        (OTHER, {OTHER.name: READ}, True, False),
        (OTHER, {OTHER.name: WRITE}, True, True),
        (OTHER, {"roles/algorithm": WRITE}, True, True),
        (OTHER, {"roles/engineering": WRITE}, False, False),
        (ENGINEER, {"roles/engineering": READ, OTHER.name: WRITE}, True, False),
        (key("auditor", types.ROLE_AUDITOR), {}, False, False),
    ],
)
def test_a_restricted_dataset_is_for_those_it_is_granted_to(principal, rights, reads, writes):
    assert (grants.may(principal, CLOSED, rights, READ), grants.may(principal, CLOSED, rights, WRITE)) == (
        reads,
        writes,
    )
    assert grants.may(principal, dataset.Dataset(name=NAME), {}, WRITE), "roles alone judge an open one"


@pytest.mark.parametrize(("principal", "may"), [(OWNER, True), (ADMIN, True), (OTHER, False), (ENGINEER, False)])
def test_the_owner_and_administrators_share_it(principal, may):
    assert grants.may_share(principal, CLOSED) == may
    nobodys = dataset.Dataset(name=NAME)
    assert grants.may_share(Principal("", frozenset()), nobodys) is False


class World:
    def __init__(self, database):
        self.database, self.record = database, audit.Audit(database)
        self.known = {each.name: each for each in (OWNER, OTHER, ENGINEER)}
        self.guard = Guard(database, self.record, self.known.get)

    def guarded(self, servicer, service):
        return Guarded(servicer, f"sluice.dataset.v1.{service}", self.guard)

    @property
    def datasets(self):
        return self.guarded(DatasetServicer(self.database), "DatasetService")

    async def get(self, principal):
        with acting(Call(principal, "/GetDataset")):
            return (await self.datasets.GetDataset(dataset.GetDatasetRequest(name=NAME), None)).dataset

    async def listed(self, principal):
        with acting(Call(principal, "/ListDatasets")):
            found = await self.datasets.ListDatasets(dataset.ListDatasetsRequest(parent=PROJECT), None)
        return [each.display_name for each in found.datasets]

    async def update(self, principal, **values):
        request = dataset.UpdateDatasetRequest(dataset=dataset.Dataset(name=NAME, **values))
        request.update_mask.paths.extend(values)
        with acting(Call(principal, "/UpdateDataset")):
            return (await self.datasets.UpdateDataset(request, None)).dataset

    async def grant(self, principal, to, right=READ):
        servicer = self.guarded(GrantServicer(self.database), "GrantService")
        request = dataset.CreateGrantRequest(parent=NAME, grant=dataset.Grant(grantee=to, right=right))
        with acting(Call(principal, "/CreateGrant")):
            return (await servicer.CreateGrant(request, None)).grant

    async def entries(self):
        async with self.database.read() as session:
            return (await audit.page(session, NAME, 0, "", True))[0]


@pytest.fixture
async def world(database):
    for name, access in (("d", dataset.DATASET_ACCESS_GRANTED), ("open", 0)):
        wanted = dataset.Dataset(display_name=name, task_type="sft", access=access)
        with acting(Call(OWNER, "/CreateDataset")):
            await database.transact(lambda unit, wanted=wanted: commands.create_dataset(unit, PROJECT, wanted))
    return World(database)


async def test_for_others_it_does_not_exist(world):
    assert (await world.get(OWNER)).owner == OWNER.name
    with pytest.raises(NotFound) as closed:
        await world.get(OTHER)
    other = dataset.GetDatasetRequest(name=NAME.replace("/d", "/x").replace("/xatasets", "/datasets"))
    with acting(Call(OTHER, "/GetDataset")), pytest.raises(NotFound) as missing:
        await world.datasets.GetDataset(other, None)
    assert closed.value.message.replace("/d`", "/x`") == missing.value.message
    assert (await world.listed(OTHER), await world.listed(OWNER)) == (["open"], ["d", "open"])
    async with world.database.read() as session:
        assert [await grants.hidden(session, who, PROJECT) for who in (OTHER, OWNER, ADMIN)] == [{NAME}, set(), set()]
    await world.grant(OWNER, OTHER.name)
    assert (await world.get(OTHER)).name == NAME and await world.listed(OTHER) == ["d", "open"]


async def test_a_reader_may_not_write_and_a_writer_may_not_share(world):
    await world.grant(OWNER, "roles/algorithm")
    with pytest.raises(Denied, match="may read"):
        await world.update(OTHER, description="mine")
    await world.grant(OWNER, "roles/algorithm", WRITE)
    assert (await world.update(OTHER, description="mine")).description == "mine"
    for change in (
        {"access": dataset.DATASET_ACCESS_PROJECT},
        {"owner": OTHER.name},
        {"retention_days": 1},
        {"classification": dataset.CLASSIFICATION_PUBLIC},
        {"deidentify": dataset.DEIDENTIFY_REPORT},
    ):
        with pytest.raises(Denied, match="does not own"):
            await world.update(OTHER, **change)
    with pytest.raises(Denied, match="does not own"):
        await world.grant(OTHER, ENGINEER.name)
    assert (await world.update(OWNER, owner=OTHER.name)).owner == OTHER.name
    assert (await world.grant(OTHER, ENGINEER.name)).creator == OTHER.name


async def test_a_service_that_asks_for_somebody_is_answered_as_that_one(world):
    for behind, passes in (
        ("", True),
        ("services/trainer", True),
        (OWNER.name, True),
        (OTHER.name, False),
        ("gone", False),
    ):
        request = dataset.GetDatasetVersionRequest(name=f"{NAME}/versions/1", on_behalf_of=behind)
        with acting(Call(TRAINER, "/GetDatasetVersion")):
            try:
                await world.guard.check("GetDatasetVersion", request, set())
                judged = True
            except NotFound:
                judged = False
        # a service that asks by itself may read everything
        assert judged == passes, behind


async def test_names_of_several_datasets_are_judged_by_all_of_them(world):
    request = dataset.ListDatasetVersionsRequest(parent=f"{PROJECT}/datasets/-")
    for principal, passes in ((OWNER, True), (OTHER, False)):
        with acting(Call(principal, "/ListDatasetVersions")):
            try:
                await world.guard.check("ListDatasetVersions", request, set())
                judged = True
            except NotFound:
                judged = False
        assert judged == passes


class Rows(dataset.DatasetVersionServiceServicer):
    async def ReadDatasetVersion(self, request, context):
        yield dataset.ReadDatasetVersionResponse(rows=b"{}\n{}\n")
        yield dataset.ReadDatasetVersionResponse(rows=b"{}\n")
        if request.split == "test":
            raise NotFound("the rest is gone")


async def read(world, principal, pieces=9, **wanted):
    servicer = world.guarded(Rows(), "DatasetVersionService")
    request = dataset.ReadDatasetVersionRequest(name=f"{NAME}/versions/1", **wanted)
    with acting(Call(principal, "/sluice.dataset.v1.DatasetVersionService/ReadDatasetVersion", "00-a")):
        stream = servicer.ReadDatasetVersion(request, None)
        got = []
        async for each in stream:
            got.append(each)
            if len(got) == pieces:
                await stream.aclose()
        return got


async def test_every_read_leaves_one_entry_however_it_ends(world):
    await read(world, OWNER)
    await read(world, OWNER, pieces=1)
    with pytest.raises(NotFound):
        await read(world, OWNER, split="test")
    with pytest.raises(NotFound):
        await read(world, OTHER)
    refused, broken, left, whole = await world.entries()
    assert [(each.principal, each.outcome, each.rows) for each in (whole, left, broken, refused)] == [
        (OWNER.name, dataset.AUDIT_OUTCOME_COMPLETE, 3),
        (OWNER.name, dataset.AUDIT_OUTCOME_ENDED_EARLY, audit.UNCOUNTED),
        (OWNER.name, dataset.AUDIT_OUTCOME_BROKEN, 3),
        (OTHER.name, dataset.AUDIT_OUTCOME_REFUSED, audit.UNCOUNTED),
    ]
    assert whole.action == "ReadDatasetVersion" and whole.resource == f"{NAME}/versions/1"
    assert whole.traceparent == "00-a" and whole.end_time.ToNanoseconds() >= whole.time.ToNanoseconds()


async def test_no_row_goes_out_of_which_no_record_can_be_made(world):
    async with world.database.engine.execution_options(writes=True).begin() as connection:
        await connection.execute(text("drop table dataset_read"))
    servicer = world.guarded(Rows(), "DatasetVersionService")
    request = dataset.ReadDatasetVersionRequest(name=f"{NAME}/versions/1")
    with acting(Call(OWNER, "/ReadDatasetVersion")), pytest.raises(OperationalError):
        await anext(servicer.ReadDatasetVersion(request, None))


async def test_what_was_refused_is_on_the_record_and_what_is_not_there_is_not(world):
    await world.grant(OWNER, "roles/algorithm")
    for refused in (
        world.update(OTHER, description="mine"),
        world.update(ENGINEER, description="mine"),
        world.grant(OTHER, ENGINEER.name),
    ):
        with pytest.raises((Denied, NotFound)):
            await refused
    missing = dataset.GetDatasetRequest(name=f"{PROJECT}/datasets/none")
    with acting(Call(OTHER, "/GetDataset")), pytest.raises(NotFound):
        await world.datasets.GetDataset(missing, None)
    async with world.database.read() as session:
        assert await audit.page(session, missing.name, 0, "", False) == ([], "")
        entries, _ = await audit.page(session, NAME, 0, "", False)
    told = [(each.principal, each.action) for each in entries if each.outcome == dataset.AUDIT_OUTCOME_REFUSED]
    assert told == [(OTHER.name, "CreateGrant"), (ENGINEER.name, "UpdateDataset"), (OTHER.name, "UpdateDataset")]
    assert await world.entries() == [], "no reads"


async def test_whoever_loses_the_right_loses_the_stream_that_runs(world):
    await world.grant(OWNER, OTHER.name)
    world.guard = replace(world.guard, again_s=0.0)
    servicer = world.guarded(Rows(), "DatasetVersionService")
    request = dataset.ReadDatasetVersionRequest(name=f"{NAME}/versions/1")
    with acting(Call(OTHER, "/x/ReadDatasetVersion")):
        stream = servicer.ReadDatasetVersion(request, None)
        assert (await anext(stream)).rows
        with acting(Call(OWNER, "/DeleteGrant")):
            await world.database.transact(lambda unit: grants.take(unit, grants.name_of(NAME, OTHER.name), ""))
        with pytest.raises(NotFound):
            await anext(stream)
    ended, refused = sorted(await world.entries(), key=lambda entry: entry.outcome != dataset.AUDIT_OUTCOME_BROKEN)
    assert (ended.outcome, ended.rows) == (dataset.AUDIT_OUTCOME_BROKEN, 2)
    assert (refused.outcome, refused.principal) == (dataset.AUDIT_OUTCOME_REFUSED, OTHER.name)


async def test_the_record_says_which_version_was_the_latest(world):
    name = f"{NAME}/versions/7"

    async def version(unit):
        parent = await store.DATASETS.get(unit.session, NAME)
        parent.latest_version = 7
        await store.DATASETS.update(unit, parent)
        await store.insert_version(unit, dataset.DatasetVersion(name=name, version=7), f"{NAME}/uploads/u")

    await world.database.transact(version)
    servicer = world.guarded(Rows(), "DatasetVersionService")
    request = dataset.ReadDatasetVersionRequest(name=f"{NAME}/versions/latest")
    with acting(Call(OWNER, "/x/ReadDatasetVersion")):
        assert len([each async for each in servicer.ReadDatasetVersion(request, None)]) == 2
    assert [each.resource for each in await world.entries()] == [name]


async def test_the_event_log_tells_nobody_of_what_they_may_not_know(world):
    await read(world, OWNER)
    blob = dataset.BlobDamaged(damaged_blob=f"{PROJECT}/damagedBlobs/b", dataset_versions=[f"{NAME}/versions/1"])
    await world.database.transact(lambda unit: _emit(unit, blob, blob.damaged_blob))
    log, auditor = EventServicer(world.database, None, sift=overhearing.sift), key("auditor", types.ROLE_AUDITOR)

    async def told(principal):
        found, page = [], events.ListEventsRequest(page_size=2)
        with acting(Call(principal, "/ListEvents")):
            while True:
                answer = await log.ListEvents(page, None)
                found += [each.type.rpartition("v1.")[2] for each in answer.events]
                if not answer.next_page_token:
                    return found
                page = events.ListEventsRequest(page_size=2, page_token=answer.next_page_token)

    every = ["dataset.created", "dataset.created", "read.ended", "blob.damaged"]
    assert await told(auditor) == await told(ADMIN) == await told(TRAINER) == every
    assert await told(OWNER) == ["dataset.created", "dataset.created", "blob.damaged"]
    assert await told(OTHER) == ["dataset.created"], "the open one"
    await world.grant(OWNER, OTHER.name)
    assert await told(OTHER) == ["dataset.created", "dataset.created", "blob.damaged", "grant.created"]
    with acting(Call(ENGINEER, "/WatchEvents")):
        stream = log.WatchEvents(events.WatchEventsRequest(after_sequence=0), None)
        assert (await anext(stream)).event.subject == f"{PROJECT}/datasets/open"
        await stream.aclose()


async def _emit(unit, message, subject):
    unit.emit(message, subject)


async def test_who_began_to_upload_is_on_the_record(world):
    request = dataset.CreateUploadRequest(parent=NAME, file_name="a.jsonl", size_bytes=1)
    with acting(Call(OTHER, "/CreateUpload")):
        upload = await world.database.transact(lambda unit: commands.create_upload(unit, request, OTHER.name))
    async with world.database.read() as session:
        entries, _ = await audit.page(session, NAME, 0, "", False)
    assert (OTHER.name, upload.name) in [(each.principal, each.resource) for each in entries]


async def test_a_read_that_the_service_did_not_live_to_end_stays_open(world):
    call = Call(OWNER, "/x/ReadRecordBatches")
    await world.record.begin(call, NAME, f"{NAME}/versions/1").written
    (entry,) = await world.entries()
    assert (entry.outcome, entry.HasField("end_time")) == (dataset.AUDIT_OUTCOME_OPEN, False)


async def test_the_record_cannot_be_changed(world):
    await read(world, OWNER)
    for change in ("DELETE FROM dataset_read", "UPDATE dataset_read_end SET rows = 0"):

        async def work(unit, change=change):
            await unit.session.exec(text(change))

        with pytest.raises(IntegrityError, match="append-only"):
            await world.database.transact(work)
    (entry,) = await world.entries()
    assert entry.rows == 3


async def test_pages_of_reads_and_changes_tell_each_once(world):
    for _ in range(3):
        await read(world, OWNER)
    seen, token = [], ""
    while True:
        async with world.database.read() as session:
            found, token = await audit.page(session, NAME, 2, token, False)
        seen += [each.id for each in found]
        if not token:
            break
    assert len(seen) == len(set(seen)) == 4, "three reads, and that it was created"
