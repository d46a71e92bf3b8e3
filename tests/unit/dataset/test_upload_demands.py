"""What uploads and datasets ask of rows beyond their schema: the more of both is done, and a tokenizer has to come."""

import asyncio

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from kit.blobs import Blob, FileKek, open_store
from kit.rpc.errors import Invalid, NotFound, StateConflict
from services.dataset import checks, commands, store
from services.dataset.servicer.feeds import FeedServicer
from services.dataset.servicer.uploads import UploadServicer
from services.dataset.uploads import demands
from services.dataset.uploads import domain as uploads
from services.dataset.uploads.judging import StoredParts, judged
from services.dataset.uploads.staged import Recent, Staged, StalledError, Stored
from sluice.dataset import v1 as dataset

DATASET = "projects/p/datasets/d"
TOKENIZER = "sha256:" + "a" * 64
OFF, REPORT, MASK, REFUSE = range(4)


@pytest.fixture
def opened(database):
    async def opened(asked, **about):
        wanted = dataset.Dataset(display_name="d", task_type="sft", **about)
        await database.transact(lambda unit: commands.create_dataset(unit, "projects/p", wanted))
        request = dataset.CreateUploadRequest(parent=DATASET, file_name="a.jsonl", size_bytes=5, demands=asked)
        upload = await database.transact(lambda unit: commands.create_upload(unit, request, "me"))
        await database.transact(lambda unit: commands.append_piece(unit, upload.name, 0, Blob("b", 5)))
        return upload

    return opened


@pytest.mark.parametrize(("asked", "least"), [(OFF, OFF), (REPORT, MASK), (REFUSE, MASK), (OFF, REFUSE)])
async def test_the_stricter_policy_holds(opened, asked, least):
    upload = await opened(dataset.RowDemands(deidentify=asked), deidentify=least)
    assert upload.demands.deidentify == max(asked, least)
    parent = dataset.Dataset(deidentify=least)
    assert (
        demands.of(demands.at_least(dataset.RowDemands(deidentify=asked), parent)).deidentify
        == (("", "report", "mask", "refuse")[max(asked, least)])
    )


@pytest.mark.parametrize("named", [[], ["presidio"], ["numbers"], ["presidio", "cued", "numbers"]])
async def test_an_upload_takes_no_recognizer_from_the_policy_of_a_dataset(opened, named):
    upload = await opened(dataset.RowDemands(recognizers=named), deidentify=MASK)
    looking = demands.of(upload.demands).recognizers
    assert {"cued", "numbers", *named} == set(looking) and len(looking) == len(set(looking))
    alone = demands.at_least(dataset.RowDemands(recognizers=["numbers"], deidentify=MASK), dataset.Dataset())
    assert demands.of(alone).recognizers == ("numbers",)


async def test_an_expression_that_cannot_be_read_opens_no_upload_and_holds_nobody_up(database, blobs, opened):
    await opened(dataset.RowDemands())
    wrong = dataset.RowDemands(keep="answr = 'x'")
    upload = dataset.CreateUploadRequest(parent=DATASET, file_name="b.jsonl", size_bytes=5, demands=wrong)
    feed = dataset.Feed(name=f"{DATASET}/feeds/f", display_name="f", demands=wrong)
    uploads, feeds = UploadServicer(database, blobs, checks.Spare(), Recent()), FeedServicer(database, blobs)
    calls = [
        lambda: uploads.CreateUpload(upload, None),
        lambda: feeds.CreateFeed(dataset.CreateFeedRequest(parent=DATASET, feed=feed), None),
        lambda: feeds.UpdateFeed(dataset.UpdateFeedRequest(feed=feed), None),
    ]
    async with database.begin(), asyncio.timeout(20):  # somebody writes
        for call in calls:
            with pytest.raises(Invalid, match=r"has no column `answr`.*\(at character 1\)"):
                await asyncio.create_task(call())
    async with database.read() as session:
        assert len((await store.UPLOADS.page(session, parent=DATASET))[0]) == 1


async def test_an_upload_waits_for_the_tokenizer_that_it_announced(database, opened):
    upload = await opened(dataset.RowDemands(max_tokens=5, tokenizer=TOKENIZER))
    commit = lambda unit: commands.commit_upload(unit, upload.name)  # noqa: E731
    with pytest.raises(StateConflict, match="the tokenizer that was announced has not come"):
        await database.transact(commit)
    with pytest.raises(StateConflict, match="does not have the digest"):
        await database.transact(lambda unit: commands.keep_tokenizer(unit, upload.name, Blob("sha256:b", 9)))
    for _ in range(2):  # again is as once
        await database.transact(lambda unit: commands.keep_tokenizer(unit, upload.name, Blob(TOKENIZER, 9)))
    assert (await database.transact(commit)).state == dataset.UPLOAD_STATE_VALIDATING
    with pytest.raises(StateConflict, match="takes no tokenizer"):
        await database.transact(lambda unit: commands.keep_tokenizer(unit, upload.name, Blob(TOKENIZER, 9)))


async def test_an_upload_that_announced_none_takes_none(database, opened):
    upload = await opened(dataset.RowDemands())
    with pytest.raises(StateConflict, match="takes no tokenizer"):
        await database.transact(lambda unit: commands.keep_tokenizer(unit, upload.name, Blob(TOKENIZER, 9)))


def test_what_identifies_people_is_told_by_kind_and_field():
    upload = dataset.Upload(state=dataset.UPLOAD_STATE_VALIDATING)
    found = [("EMAIL", "text", 1), ("CN_MOBILE", "text", 3)]
    uploads.note_findings(upload, checks.Outcome(True, 3, [], {}, filtered=2, identified=found))
    told = [(each.kind, each.field, each.count) for each in upload.identified_counts]
    assert told == [("CN_MOBILE", "text", 3), ("EMAIL", "text", 1)] and upload.filtered_rows == 2


@pytest.mark.parametrize(("paths", "left"), [([], MASK), (["description"], MASK), (["deidentify"], OFF)])
async def test_who_does_not_speak_of_the_policy_leaves_it(database, opened, paths, left):
    await opened(dataset.RowDemands(), deidentify=MASK)
    wanted, mask = dataset.Dataset(name=DATASET, description="x"), FieldMask(paths=paths)
    changed = await database.transact(lambda unit: commands.update_dataset(unit, wanted, mask))
    assert changed.deidentify == left


@pytest.fixture
def blobs(tmp_path):
    return open_store(f"file://{tmp_path / 'blobs'}", FileKek.create(tmp_path / "kek", home=tmp_path / "home"))


async def once(data):
    yield data


async def test_what_follows_the_file_is_read_and_may_go(database, blobs, opened):
    upload = await opened(dataset.RowDemands())
    kept, gone = await blobs.put("projects/p", once(b"kept")), Blob(TOKENIZER, 4)
    for may_go, error in ((True, StalledError), (False, NotFound)):
        staged = Staged(database, blobs, upload, Recent())
        staged.follow(Stored("projects/p", kept.digest, 4), Stored("projects/p", gone.digest, 4, may_go=may_go))
        assert await staged.read(5, 4) == b"kept" and await staged.read(6, 2) == b"ep"
        with pytest.raises(error):
            await staged.read(9, 4)


async def test_a_check_that_waits_for_a_tokenizer_leaves_no_process(database, blobs, opened, spare):
    upload = await opened(dataset.RowDemands(max_tokens=5, tokenizer=TOKENIZER))
    checker, staged = spare.take(), Staged(database, blobs, upload, Recent())
    with pytest.raises(StalledError):
        async with asyncio.timeout(20):
            await judged(database, StoredParts(database, blobs), checker, upload, staged)
    assert checker.process.poll() is not None
