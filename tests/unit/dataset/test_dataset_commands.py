"""The commands of the dataset service on a private database, and what they emit."""

from datetime import timedelta
from functools import partial

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from sqlmodel import col, select

from kit.blobs import Blob
from kit.rpc.errors import AlreadyExists, Invalid, NotFound, Stale, StateConflict
from kit.store import OutboxRow, check
from services.dataset import app, checks, commands, parts, store
from services.dataset.feeds import commands as feeds_commands
from services.dataset.feeds.store import FEEDS
from services.dataset.uploads import domain as uploads
from services.dataset.uploads.news import New, UncomparedError, UncountedError
from sluice.dataset import v1 as dataset

PROJECT = "projects/p"
FINE = checks.Outcome(True, 3, [], {})


def create(name="d"):
    wanted = dataset.Dataset(display_name=name, task_type="sft")
    return lambda unit: commands.create_dataset(unit, PROJECT, wanted)


async def opened(database, size=10, append=False, columns=None):
    """An upload of `size` bytes to `projects/p/datasets/d`."""
    request = dataset.CreateUploadRequest(
        parent=f"{PROJECT}/datasets/d", file_name="a.jsonl", size_bytes=size, append=append, columns=columns
    )
    return await database.transact(lambda unit: commands.create_upload(unit, request, "me"))


async def complete(database, *contents, append=False, columns=None):
    """One whose bytes are all there, which is being checked, and has brought a part of 3 rows for each content."""
    upload = await opened(database, append=append, columns=columns)
    for offset, digest in ((0, "a"), (5, "b")):
        blob = Blob(digest, 5)
        await database.transact(lambda unit, at=offset, b=blob: commands.append_piece(unit, upload.name, at, b))
    for place, content in enumerate(contents or [b"rows"]):
        part = parts.new_part(upload.name, place, checks.Part(content, {"train": 2, "validation": 0, "test": 1}))
        await database.transact(lambda unit, part=part: added(unit, part))
    return await database.transact(lambda unit: commands.commit_upload(unit, upload.name))


async def added(unit, part):
    unit.session.add(part)


async def emitted(database):
    async with database.read() as session:
        rows = await session.exec(select(OutboxRow.type).order_by(col(OutboxRow.sequence)))
        return [each.removeprefix("sluice.dataset.v1.") for each in rows.all()]


async def test_a_version_says_what_its_own_rows_were_read_from(database):
    await database.transact(create())
    read = {"messages": ["findings", "impression"], "id": ["id"]}
    told = checks.Outcome(True, 3, [], {}, read=read, unused=["url"], unused_more=2, sheets_unread=1)
    for append, outcome in ((False, told), (True, FINE)):
        upload = await complete(database, b"first" if append else b"second", append=append)
        compared = f"{PROJECT}/datasets/d/versions/1" if append else ""
        commit = partial(commands.commit_version, name=upload.name, outcome=outcome, compared=compared)
        await database.transact(partial(commit, new=New(compared, 3) if append else None))
    async with database.read() as session:
        first, second = [await store.get_version(session, f"{PROJECT}/datasets/d/versions/{n}") for n in (1, 2)]
    assert {each.column: list(each.names) for each in first.columns_read} == read
    assert (list(first.names_unused), first.names_unused_more, first.sheets_unread) == (["url"], 2, 1)
    assert second.row_count == 6 and not second.columns_read


async def test_feeds_that_were_there_before_take_over_the_columns_of_the_first_version(database):
    await database.transact(create())
    own = {"question": "prompt"}
    for name, columns in (("none", {}), ("own", own)):
        wanted = dataset.Feed(display_name=name, columns=columns)
        await database.transact(
            lambda unit, wanted=wanted: feeds_commands.create_feed(unit, f"{PROJECT}/datasets/d", wanted, "me")
        )
    for columns in ({"findings": "prompt"}, {"befund": "prompt"}):  # those of the second are for feeds to come
        upload = await complete(database, str(columns).encode(), columns=columns)
        newest = f"{PROJECT}/datasets/d/versions/1" if "befund" in columns else ""
        commit = partial(
            commands.commit_version, name=upload.name, outcome=FINE, new=New(newest, 3) if newest else None
        )
        await database.transact(commit)
    async with database.read() as session:
        found = {each.display_name: dict(each.columns) for each in await FEEDS.find(session)}
    assert found == {"none": {"findings": "prompt"}, "own": own}
    assert (await emitted(database)).count("feed.updated") == 1


async def test_models_and_migrations_agree(database):
    assert app.application  # which brings in every module that has tables
    assert await check(database, store.DatasetRow.metadata) == []


async def test_a_dataset_is_created_once(database):
    created = await database.transact(create())
    assert created.etag and created.create_time.seconds
    with pytest.raises(AlreadyExists):
        await database.transact(create("D"))  # the same slug
    assert await emitted(database) == ["dataset.created"]


async def test_an_update_takes_three_fields_under_the_present_etag(database):
    created = await database.transact(create())
    wanted = dataset.Dataset(name=created.name, description="rows", task_type="pretrain", etag=created.etag)
    changed = await database.transact(lambda unit: commands.update_dataset(unit, wanted, FieldMask()))
    assert (changed.description, changed.task_type) == ("rows", "sft")
    with pytest.raises(Stale):
        await database.transact(lambda unit: commands.update_dataset(unit, wanted, FieldMask()))
    with pytest.raises(Invalid, match="display_name"):
        mask = FieldMask(paths=["display_name"])
        await database.transact(lambda unit: commands.update_dataset(unit, wanted, mask))
    assert await emitted(database) == ["dataset.created", "dataset.updated"]


async def test_the_task_type_changes_only_while_nothing_was_made_by_it(database):
    async def retyped(task_type):
        wanted = dataset.Dataset(name=f"{PROJECT}/datasets/d", task_type=task_type)
        mask = FieldMask(paths=["task_type"])
        return (await database.transact(lambda unit: commands.update_dataset(unit, wanted, mask))).task_type

    await database.transact(create())
    begun = await opened(database)
    assert await retyped("pretrain") == "pretrain"
    async with database.read() as session:
        assert (await store.UPLOADS.get(session, begun.name)).state == dataset.UPLOAD_STATE_EXPIRED
    with pytest.raises(Invalid, match="is not known"):
        await retyped("nonsense")
    upload = await complete(database)
    with pytest.raises(StateConflict, match="being checked"):
        await retyped("sft")
    await database.transact(lambda unit: commands.commit_version(unit, upload.name, FINE))
    with pytest.raises(StateConflict, match="has versions"):
        await retyped("sft")


async def test_an_update_is_held_to_the_rules_of_the_contract(database):
    created = await database.transact(create())
    wanted = dataset.Dataset(name=created.name, description="x" * 100_000)
    with pytest.raises(Invalid, match="description"):
        await database.transact(lambda unit: commands.update_dataset(unit, wanted, FieldMask(paths=["description"])))


async def test_no_upload_to_a_dataset_that_is_not_there(database):
    with pytest.raises(NotFound):
        await opened(database)


async def test_pieces_come_one_after_the_other_and_each_once(database):
    await database.transact(create())
    upload = await opened(database)
    await database.transact(lambda unit: commands.append_piece(unit, upload.name, 0, Blob("a", 5)))
    for offset in (0, 4, 6):
        with pytest.raises(StateConflict):
            await database.transact(lambda unit, at=offset: commands.append_piece(unit, upload.name, at, Blob("b", 5)))
    with pytest.raises(StateConflict, match="5 of 10"):
        await database.transact(lambda unit: commands.commit_upload(unit, upload.name))


async def test_commit_is_idempotent_until_the_upload_is_refused(database):
    await database.transact(create())
    upload = await complete(database)
    again = await database.transact(lambda unit: commands.commit_upload(unit, upload.name))
    assert again.etag == upload.etag and again.state == dataset.UPLOAD_STATE_VALIDATING
    await database.transact(lambda unit: commands.end_upload(unit, upload.name, uploads.fail_checksum))
    with pytest.raises(StateConflict, match="FAILED"):
        await database.transact(lambda unit: commands.commit_upload(unit, upload.name))


async def test_an_upload_makes_one_version_however_often_it_is_settled(database):
    await database.transact(create())
    upload = await complete(database)
    await database.transact(lambda unit: commands.commit_version(unit, upload.name, FINE))
    for _ in range(3):
        with pytest.raises(StateConflict):
            await database.transact(lambda unit: commands.commit_version(unit, upload.name, FINE))
    async with database.read() as session:
        versions, _ = await store.page_versions(session, f"{PROJECT}/datasets/d", 0, "")
        settled = await store.UPLOADS.get(session, upload.name)
        assert (await store.DATASETS.get(session, f"{PROJECT}/datasets/d")).latest_version == 1
        assert await store.leftovers(session) == [upload.name]
    assert [version.name for version in versions] == [settled.dataset_version] == [f"{PROJECT}/datasets/d/versions/1"]
    assert await emitted(database) == ["dataset.created", "upload.created", "dataset_version.committed"]


async def test_rows_that_were_checked_by_a_policy_of_before_make_no_version(database):
    await database.transact(create())
    upload = await complete(database)
    wanted = dataset.Dataset(name=f"{PROJECT}/datasets/d", deidentify=dataset.DEIDENTIFY_MASK)
    mask = FieldMask(paths=["deidentify"])
    await database.transact(lambda unit: commands.update_dataset(unit, wanted, mask))
    with pytest.raises(StateConflict, match="checked again"):
        await database.transact(lambda unit: commands.commit_version(unit, upload.name, FINE))
    masked = partial(commands.commit_version, deidentified=dataset.DEIDENTIFY_MASK)
    await database.transact(lambda unit: masked(unit, upload.name, FINE))


async def committed(database, upload, newest):
    """Makes a version after the newest, of one row that is new there."""
    name = f"{PROJECT}/datasets/d/versions/{newest}"
    about = {"new": New(name, 1) if newest else None, "compared": name if upload.append else ""}
    await database.transact(lambda unit: commands.commit_version(unit, upload.name, FINE, **about))


async def test_a_version_is_compared_with_the_newest_before_it_is_made(database):
    await database.transact(create())
    await committed(database, await complete(database), 0)
    upload = await complete(database, b"b")
    with pytest.raises(UncountedError) as wanted:
        await committed(database, upload, 0)
    assert wanted.value.version == f"{PROJECT}/datasets/d/versions/1"
    async with database.read() as session:
        assert (await store.UPLOADS.get(session, upload.name)).state == dataset.UPLOAD_STATE_VALIDATING
    gone = New(f"{PROJECT}/datasets/d/versions/1", None)
    await database.transact(lambda unit: commands.commit_version(unit, upload.name, FINE, new=gone))
    async with database.read() as session:
        assert not (await store.get_version(session, f"{PROJECT}/datasets/d/versions/2")).HasField("rows_new")


async def test_ids_are_compared_with_the_newest_version_before_rows_are_appended_to_it(database):
    await database.transact(create())
    for number, content in enumerate((b"a", b"b")):
        await committed(database, await complete(database, content), number)
    upload = await complete(database, b"c", append=True)
    with pytest.raises(UncomparedError) as wanted:
        await committed(database, upload, 1)
    assert [each[-1] for each in (wanted.value.newest, wanted.value.compared)] == ["2", "1"]
    await committed(database, upload, 2)


async def test_a_version_that_appends_shares_the_parts_before_it(database):
    await database.transact(create())
    for number, (content, append) in enumerate(((b"a", False), (b"b", True), (b"c", False))):
        upload = await complete(database, content, append=append)
        await committed(database, upload, number)
    names = [f"{PROJECT}/datasets/d/versions/{number}" for number in (1, 2, 3)]
    async with database.read() as session:
        first, second, third = [await store.get_version(session, name) for name in names]
        digests = [[part.digest for part in await parts.of(session, name)] for name in names]
    assert digests[1][:1] == digests[0] and len(digests[1]) == 2 and len(digests[2]) == 1
    assert (second.base_version, second.row_count, second.rows_added) == (first.name, 6, 3)
    assert (third.base_version, third.row_count, dict(third.split_rows)["train"]) == ("", 3, 2)
    assert [each.rows_new for each in (first, second, third)] == [3, 1, 1]
    assert len({each.digest for each in (first, second, third)}) == 3


async def test_a_blob_is_doomed_when_it_is_dropped_and_spared_when_somebody_names_it(database):
    await database.transact(create())
    kept = await complete(database, b"shared")
    await database.transact(lambda unit: commands.commit_version(unit, kept.name, FINE))
    refused = await complete(database, b"shared", b"own")
    await database.transact(lambda unit: parts.drop(unit, refused.name))
    async with database.read() as session:
        assert await parts.of(session, refused.name) == []
        assert await parts.doomed(session, database.clock() - timedelta(hours=1)) == []
        doomed = await parts.doomed(session, database.clock() + timedelta(seconds=1))
    async with database.read() as session:
        spared = {each.digest: await parts.is_named(session, each) for each in doomed}
    own, shared = [parts.new_part(refused.name, 0, checks.Part(each, {})).digest for each in (b"own", b"shared")]
    assert spared == {own: False, shared: True}
    for each in doomed:
        await database.transact(lambda unit, each=each: parts.strike(unit, each))
    async with database.read() as session:
        assert await parts.doomed(session, database.clock() + timedelta(seconds=1)) == []


async def test_parts_that_are_not_those_checked_make_no_version(database):
    await database.transact(create())
    upload = await complete(database, b"a", b"b")
    with pytest.raises(StateConflict, match="checked again"):
        await database.transact(lambda unit: commands.commit_version(unit, upload.name, FINE))


async def test_the_database_itself_refuses_a_second_version_of_an_upload(database):
    await database.transact(create())
    version = dataset.DatasetVersion(name=f"{PROJECT}/datasets/d/versions/1", version=1)
    await database.transact(lambda unit: store.insert_version(unit, version, "u"))
    version.name, version.version = f"{PROJECT}/datasets/d/versions/2", 2
    with pytest.raises(AlreadyExists):
        await database.transact(lambda unit: store.insert_version(unit, version, "u"))


async def test_latest_is_the_newest_and_absent_is_said_so(database):
    await database.transact(create())
    latest = f"{PROJECT}/datasets/d/versions/latest"
    async with database.read() as session:
        with pytest.raises(NotFound, match="has no version yet; upload"):
            await store.get_version(session, latest)
    for number in range(2):
        await committed(database, await complete(database), number)
    async with database.read() as session:
        assert (await store.get_version(session, latest)).version == 2


async def test_an_expired_upload_is_over(database):
    await database.transact(create())
    upload = await opened(database)
    await database.transact(lambda unit: commands.append_piece(unit, upload.name, 0, Blob("a", 5)))
    await database.transact(lambda unit: commands.expire_upload(unit, upload.name))
    with pytest.raises(StateConflict, match="EXPIRED"):
        await database.transact(lambda unit: commands.append_piece(unit, upload.name, 5, Blob("b", 5)))


async def test_what_is_appended_takes_over_the_columns_of_the_newest_version_unless_it_names_some(database):
    await database.transact(create())
    named = {"findings": "prompt", "impression": "completion", "patient_id": "group"}
    request = partial(dataset.CreateUploadRequest, parent=f"{PROJECT}/datasets/d", file_name="a.jsonl", size_bytes=1)

    async def opened_for(**wanted):
        return await database.transact(lambda unit: commands.create_upload(unit, request(**wanted), "me"))

    upload = await complete(database, append=False)
    upload.columns.update(named)
    await database.transact(lambda unit: store.UPLOADS.update(unit, upload))
    await database.transact(lambda unit: commands.commit_version(unit, upload.name, FINE))
    taken = await opened_for(append=True)
    assert (dict(taken.columns), taken.columns_from) == (named, f"{PROJECT}/datasets/d/versions/1")
    for wanted in ({"append": True, "columns": {"pid": "group"}}, {"append": False}):
        other = await opened_for(**wanted)
        assert (dict(other.columns), other.columns_from) == (wanted.get("columns", {}), "")
    with pytest.raises(Invalid, match="`grp`"):
        await opened_for(columns={"pid": "grp"})
    for wanted, columns in (({}, named), ({"columns": {"pid": "group"}}, {"pid": "group"})):
        feed = dataset.Feed(display_name=f"f {len(columns)}", **wanted)
        made = await database.transact(
            lambda unit, feed=feed: feeds_commands.create_feed(unit, f"{PROJECT}/datasets/d", feed, "me")
        )
        assert dict(made.columns) == columns
