"""Feeds: when rows are due, what counts as rows, and that every row is in one version in the order of its coming."""

import asyncio
import io
import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from kit.auth.principal import Principal
from kit.blobs import FileKek, open_store
from kit.rpc.call import Call, acting
from kit.rpc.errors import Exhausted, Invalid, NotFound, Stale, StateConflict
from services.dataset import commands, parts, reading, store
from services.dataset.feeds import domain as feeds
from services.dataset.feeds.store import FEEDS
from services.dataset.feeds.supervisor import FeedSupervisor
from services.dataset.servicer import FeedServicer
from services.dataset.supervisor import UploadSupervisor
from services.dataset.uploads.staged import Recent
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.rows.checking import Rules
from sluice.rows.convert import convert

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PARENT = "projects/p/datasets/d"
FEED = f"{PARENT}/feeds/pacs"
SFT = dataset.Dataset(name=PARENT, task_type="sft")


def waiting(rows=0, size=0, since=NOW, **more):
    feed = feeds.new_feed(SFT, dataset.Feed(display_name="PACS"), "me")
    feed.MergeFrom(dataset.Feed(waiting_rows=rows, waiting_bytes=size, **more))
    if since is not None:
        feed.waiting_since.FromDatetime(since)
    return feed


BEGINNING = datetime.fromtimestamp(0, UTC)


@pytest.mark.parametrize(
    ("feed", "due"),
    [
        (waiting(since=None), None),
        (waiting(rows=1), NOW + HOUR),
        (waiting(rows=9_999), NOW + HOUR),
        (waiting(rows=10_000), NOW),
        (waiting(rows=1, size=64 << 20), NOW),
        (waiting(rows=10_000, paused=True), None),
        (waiting(rows=1, paused=True, flushing=True), BEGINNING),
        (waiting(rows=1, flushing=True), BEGINNING),
        (waiting(rows=10_000, flushing=True, checked_upload="u"), None),
        (waiting(rows=5, returned_rows=5, since=None), None),
        (waiting(rows=5, returned_rows=5, since=None, flushing=True), BEGINNING),
        (waiting(rows=10_001, returned_rows=10_000), NOW + HOUR),
    ],
)
def test_when_rows_are_due(feed, due):
    assert feeds.due_at(feed) == due


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        (b"", "are empty"),
        (b"\n \r\n\n", "are empty"),
        (b'{"a": 1}\nnull\n', "line 2"),
        (b'{"a": 1}\n\n[1]\n', "line 3"),
        (b'{"a": 1} {"b": 2}\n', "line 1"),
        (b'{"a":\n1}\n', "line 1"),
        (b'{"a": NaN}', "line 1"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'{"a":' + b"[" * 100_000, "line 1"),
        (b"{}\n" * 10_001, "more than 10000"),
    ],
)
def test_what_is_no_json_lines_is_refused_without_repeating_it(rows, wrong):
    with pytest.raises(Invalid, match=wrong) as refused:
        feeds.lines_of(rows)
    assert refused.value.violations[0][0] == "rows" and "NaN" not in refused.value.message


def test_lines_are_kept_as_they_are():
    assert feeds.lines_of('{"a": "胸片"}\r\n\n  {"b": 1.0}'.encode()) == ['{"a": "胸片"}'.encode(), b'{"b": 1.0}']


@pytest.mark.parametrize(
    "odd",
    [
        b"{}",
        b'{"prompt": "q", "prompt": "r", "completion": "a"}',
        b'{"prompt": 1e400, "completion": "a"}',
        b'{"prompt": ' + b"9" * 400 + b', "completion": "a"}',
        b'{"prompt": "\\u0000", "completion": "a"}',
        b'{"prompt": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"prompt": "q", "completion": "a", "split": 1, "key": [], "tags": 5}',
        b'{"messages": [{"role": 1}, 2]}',
        b'\x0c{"prompt": "q", "completion": "a"}',
    ],
)
def test_whatever_is_taken_becomes_a_row_or_is_put_aside_alone(odd):
    content = b"\n".join([*feeds.lines_of(odd), json.dumps(row(1)).encode(), b""])
    found = convert(io.BytesIO(content), feeds.FILE_NAME, Rules("sft", {"ticket": "id"}, quarantine=True, loose=True))
    assert found.accepted and found.row_count + found.put_aside == 2


def test_a_feed_and_its_subject_name_each_other():
    feed = feeds.new_feed(SFT, dataset.Feed(display_name="PACS"), "me")
    assert (feed.name, feed.subject) == (FEED, "sluice.feed.v1.p.d.pacs")
    assert feeds.feed_of(feed.subject) == FEED


class World:
    """The service without its ports: a private database, encrypted files and real checking processes."""

    def __init__(self, database, folder, spare):
        self.database, self.folder = database, folder
        self.blobs = open_store(f"file://{folder / 'blobs'}", FileKek.create(folder / "kek", home=folder / "home"))
        self.uploads = UploadSupervisor(database, self.blobs, spare, Recent())
        self.feeds = FeedSupervisor(database, self.blobs)
        self.servicer = FeedServicer(database, self.blobs)

    async def feed(self, **wanted):
        request = dataset.CreateFeedRequest(parent=PARENT, feed=dataset.Feed(display_name="PACS", **wanted))
        with acting(Call(principal=Principal("keys/me", frozenset()), method="CreateFeed")):
            return (await self.servicer.CreateFeed(request, None)).feed

    async def append(self, *rows, request_id=""):
        lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        request = dataset.AppendRowsRequest(name=FEED, rows=lines, request_id=request_id)
        return (await self.servicer.AppendRows(request, None)).feed

    async def flush(self):
        return (await self.servicer.FlushFeed(dataset.FlushFeedRequest(name=FEED), None)).feed

    async def delete(self, **more):
        await self.servicer.DeleteFeed(dataset.DeleteFeedRequest(name=FEED, **more), None)

    async def deidentify(self, policy):
        wanted = dataset.Dataset(name=PARENT, deidentify=policy)
        mask = FieldMask(paths=["deidentify"])
        await self.database.transact(lambda unit: commands.update_dataset(unit, wanted, mask))

    async def uploaded(self):
        """What uploads there are, and what became of them."""
        async with self.database.read() as session:
            found, _ = await store.UPLOADS.page(session)
        return [dataset.UploadState.Name(each.state).removeprefix("UPLOAD_STATE_") for each in found]

    async def pieces(self, upload):
        async with self.database.read() as session:
            return await store.pieces(session, upload)

    async def work(self):
        await self.feeds.step()
        await self.uploads.step()
        await self.uploads.settle()
        await self.uploads.tidy()

    async def get(self):
        async with self.database.read() as session:
            return await FEEDS.get(session, FEED)

    async def asked(self):
        """The questions of the newest version, in order."""
        async with self.database.read() as session:
            try:
                version = await store.get_version(session, f"{PARENT}/versions/latest")
            except NotFound:
                return []
            found = await parts.stored(session, version)

        async def fetch(digest):
            return b"".join([piece async for piece in self.blobs.open("projects/p", digest)])

        lines = b"".join([piece async for piece in reading.json_lines(found, fetch, reading.Wanted())])
        return [json.loads(line)["messages"][0]["content"] for line in lines.splitlines()]

    def staged(self):
        return [path for path in (self.folder / "blobs/projects/p/uploads").rglob("*") if path.is_file()]


def row(number):
    return {"prompt": f"q{number}", "completion": f"a{number}"}


def rows(first, last):
    return [row(number) for number in range(first, last)]


def questions(first, last):
    return [f"q{number}" for number in range(first, last)]


@pytest.fixture
async def world(database, tmp_path, spare):
    wanted = dataset.Dataset(display_name="d", task_type="sft")
    await database.transact(lambda unit: commands.create_dataset(unit, "projects/p", wanted))
    return World(database, tmp_path, spare)


async def test_rows_are_gathered_and_become_versions_in_their_order(world):
    await world.feed(commit_rows=20)
    await world.append(*rows(0, 10))
    await world.work()
    assert (await world.asked(), (await world.get()).waiting_rows) == ([], 10)
    await world.append(*rows(10, 20))
    await world.feeds.step()
    await world.append(*rows(20, 45))  # while the first are checked: enough, but their turn is later
    await world.feeds.step()
    assert (await world.get()).waiting_rows == 25
    await world.work()
    assert await world.asked() == questions(0, 20)
    await world.work()
    assert await world.asked() == questions(0, 45)
    feed = await world.get()
    assert (feed.waiting_rows, feed.taken_rows, feed.checked_upload, feed.next_upload) == (0, 45, "", "")
    assert feed.dataset_version == f"{PARENT}/versions/2" and world.staged() == []


async def test_who_looks_for_due_feeds_is_woken_by_feeds_alone(world):
    await world.feed()
    woken = world.feeds.changed.count
    request = dataset.CreateUploadRequest(parent=PARENT, file_name="a.jsonl", size_bytes=1, digest=f"sha256:{'0' * 64}")
    await world.database.transact(lambda unit: commands.create_upload(unit, request, "me"))
    assert world.feeds.changed.count == woken
    await world.append(*rows(0, 1))
    assert world.feeds.changed.count > woken


async def test_an_upload_of_a_feed_is_one_like_any_other(world):
    asked = dataset.RowDemands(keep="answer != 'drop'")
    feed = await world.feed(columns={"findings": "prompt", "impression": "completion"}, fix=True, demands=asked)
    dropped = {"findings": "f", "impression": "drop"}
    waits = await world.append({"findings": "f", "impression": "i"}, {"findings": "g"}, dropped)
    assert (await world.flush()).next_upload == waits.next_upload
    await world.work()
    async with world.database.read() as session:
        upload = await store.UPLOADS.get(session, waits.next_upload)
        version = await store.get_version(session, upload.dataset_version)
    assert (upload.feed, upload.creator, upload.append) == (feed.name, "keys/me", True)
    assert (upload.quarantined_rows, upload.filtered_rows) == (1, 1)
    assert version.source_digest == upload.digest and upload.digest.startswith("sha256:")
    assert await world.asked() == ["f"]


async def test_a_repeat_is_taken_once_even_after_its_rows_became_a_version(world):
    await world.feed(paused=True, commit_rows=1)  # it takes rows, and makes no version unasked
    request_id = "0193a5c2-0000-7000-8000-000000000001"
    first = await world.append(*rows(0, 3), request_id=request_id)
    assert await world.append(*rows(0, 3), request_id=request_id) == first
    await world.work()
    assert await world.asked() == []
    await world.flush()
    await world.work()
    assert await world.asked() == questions(0, 3)
    assert await world.append(*rows(0, 3), request_id=request_id) == first
    assert (await world.get()).waiting_rows == 0 and world.staged() == []
    with pytest.raises(Invalid) as refused:
        await world.append(row(9), request_id=request_id)
    assert refused.value.reason == errors.ERROR_REASON_REQUEST_ID_REUSED


async def test_rows_of_an_upload_that_failed_go_with_the_next_ones_in_front(world):
    await world.feed(commit_after={"seconds": 1})
    await world.append({"prompt": "q0"})  # alone it makes no version
    await world.flush()
    await world.feeds.step()
    await world.append(row(1))
    await world.work()
    feed = await world.get()
    assert (feed.waiting_rows, feed.returned_rows, feed.failure.reason) == (2, 1, errors.ERROR_REASON_INVALID_ROWS)
    await world.append(row(2))
    await world.flush()
    await world.work()
    assert await world.asked() == ["q1", "q2"]
    feed = await world.get()
    assert (feed.waiting_rows, feed.returned_rows, feed.HasField("failure")) == (0, 0, False)
    async with world.database.read() as session:
        made_of = (await store.get_version(session, feed.dataset_version)).upload
        assert (await store.UPLOADS.get(session, made_of)).quarantined_rows == 1
    assert world.staged() == []
    await world.append(row(3))
    await world.flush()
    await world.work()
    assert await world.asked() == ["q1", "q2", "q3"]


async def test_what_came_back_waits_in_front_and_takes_a_new_mapping(world):
    await world.feed(on_error=dataset.ON_ERROR_FAIL, columns={"question": "prompt", "reply": "text"})
    await world.append({"question": "q", "reply": "a"})
    await world.flush()
    await world.feeds.step()
    await world.append({"question": "r", "reply": "b"})  # while the first is being checked
    await world.work()
    async with world.database.read() as session:
        uploads = await store.UPLOADS.count(session)
    for _ in range(3):
        await world.work()
    async with world.database.read() as session:
        assert await store.UPLOADS.count(session) == uploads == 1
    wanted = dataset.Feed(name=FEED, columns={"question": "prompt", "reply": "completion"})
    request = dataset.UpdateFeedRequest(feed=wanted)
    request.update_mask.paths.append("columns")
    await world.servicer.UpdateFeed(request, None)
    await world.flush()
    await world.work()
    assert await world.asked() == ["q", "r"]


async def test_rows_that_are_damaged_on_disk_are_counted_and_the_others_go_on(world):
    await world.feed()
    await world.append(*rows(0, 2))
    (first,) = [path for path in world.staged() if "data" in path.parts]
    await world.append(*rows(2, 5))
    damaged = next(path for path in world.staged() if "data" in path.parts and path != first)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    await world.flush()
    await world.work()
    feed = await world.get()
    assert (feed.failure.reason, feed.waiting_rows) == (errors.ERROR_REASON_CORRUPT_BLOB, 5)
    await world.append(row(5))
    await world.flush()
    await world.work()
    feed = await world.get()
    assert (feed.waiting_rows, feed.lost_rows, feed.HasField("failure")) == (0, 3, False)
    assert await world.asked() == ["q0", "q1", "q5"]


def test_a_feed_asks_of_its_rows_what_an_upload_can_but_no_limit_of_tokens():
    digest = f"sha256:{'0' * 64}"
    with pytest.raises(Invalid, match="tokenizer"):
        feeds.check_demands(dataset.Feed(demands=dataset.RowDemands(max_tokens=5, tokenizer=digest)), SFT)
    with pytest.raises(Invalid, match="cannot be read"):
        feeds.check_demands(dataset.Feed(demands=dataset.RowDemands(keep="length(")), SFT)


def test_a_feed_that_holds_too_much_takes_no_more():
    feed = waiting(rows=feeds.MAX_WAITING_ROWS - 1, paused=True)
    feeds.take(feed, 1, 10, NOW)
    with pytest.raises(Exhausted, match="is paused"):
        feeds.take(feed, 1, 10, NOW)
    with pytest.raises(Exhausted):
        feeds.take(waiting(size=feeds.MAX_WAITING_BYTES), 1, 1, NOW)


def test_what_a_death_leaves_behind_goes_with_the_rows_that_come_then():
    """A piece that is stored and not counted lies where the next pieces lie, so that it is deleted with them."""
    feed, again = waiting(since=None), waiting(since=None)
    feeds.take(feed, 1, 10, NOW)
    feeds.take(again, 2, 20, NOW + HOUR)
    assert feed.next_upload == again.next_upload
    feeds.hand_over(feed, NOW)
    feeds.take(feed, 1, 10, NOW)
    assert feed.next_upload != again.next_upload


async def test_those_who_come_at_a_time_are_stored_together_and_answered_each(world):
    await world.feed()
    ids = [str(uuid.uuid4()) for _ in range(30)]
    answers = await asyncio.gather(*(world.append(row(number), request_id=ids[number]) for number in range(30)))
    upload = answers[0].next_upload
    assert len(await world.pieces(upload)) <= 2  # the first perhaps alone, and all who came meanwhile
    repeated = [world.append(row(number), request_id=ids[number]) for number in (3, 3, 4)]
    other, same = world.append(row(99), request_id=ids[5]), str(uuid.uuid4())
    twice = [world.append(row(30), request_id=same) for _ in range(2)]
    found = await asyncio.gather(world.append(row(31)), *repeated, other, *twice, return_exceptions=True)
    assert found[1] == found[2] == answers[3] and found[3] == answers[4]
    assert found[4].reason == errors.ERROR_REASON_REQUEST_ID_REUSED
    assert found[5] == found[6]
    assert (await world.get()).taken_rows == 32
    await world.flush()
    await world.work()
    asked = await world.asked()
    assert asked[:30] == questions(0, 30) and sorted(asked[30:]) == ["q30", "q31"]


async def test_who_sends_in_turns_with_another_is_stored_as_fast_as_alone(world):
    async def append(number):
        with acting(Call(principal=Principal(f"keys/{number % 2}", frozenset()), method="AppendRows")):
            return await world.append(row(number))

    await world.feed()
    answers = await asyncio.gather(*(append(number) for number in range(20)))
    assert [each.waiting_rows for each in answers] == [10, 20] * 10
    await world.flush()
    await world.work()
    assert await world.asked() == questions(0, 20)[::2] + questions(0, 20)[1::2]


async def test_a_feed_that_is_deleted_takes_the_rows_with_it_that_wait(world):
    await world.feed(paused=True)
    await world.append(row(0))
    await world.flush()
    await world.work()
    made = (await world.get()).dataset_version
    await world.append(*rows(1, 3))
    assert world.staged()
    with pytest.raises(StateConflict, match="holds 2 rows"):
        await world.delete()
    with pytest.raises(Stale):
        await world.delete(force=True, etag="before")
    request_id = str(uuid.uuid4())
    for _ in range(2):
        await world.delete(force=True, request_id=request_id)
    with pytest.raises(NotFound):
        await world.append(row(3))
    await world.work()
    assert world.staged() == [] and await world.uploaded() == ["COMMITTED", "EXPIRED"]
    assert (await world.feed()).waiting_rows == 0
    await world.delete()
    assert made == f"{PARENT}/versions/1" and await world.asked() == ["q0"]


@pytest.mark.parametrize(("last", "asked", "ended"), [(row(1), ["q0", "q1"], "COMMITTED"), ({}, [], "FAILED")])
async def test_an_upload_under_way_outlives_its_feed(world, last, asked, ended):
    await world.feed(on_error=dataset.ON_ERROR_FAIL)
    await world.append(row(0), last)
    await world.flush()
    await world.feeds.step()
    with pytest.raises(StateConflict, match="being checked"):
        await world.delete()
    await world.delete(force=True)
    await world.work()
    assert (await world.asked(), await world.uploaded(), world.staged()) == (asked, [ended], [])


async def test_a_feed_asks_no_less_than_its_dataset_whenever_that_is_said(world):
    await world.deidentify(dataset.DEIDENTIFY_REPORT)
    assert (await world.feed()).demands.deidentify == dataset.DEIDENTIFY_REPORT
    wanted = dataset.Feed(name=FEED, demands=dataset.RowDemands(keep="answer != 'drop'", recognizers=["numbers"]))
    request = dataset.UpdateFeedRequest(feed=wanted, update_mask=FieldMask(paths=["demands"]))
    changed = (await world.servicer.UpdateFeed(request, None)).feed.demands
    assert changed.deidentify == dataset.DEIDENTIFY_REPORT and set(changed.recognizers) == {"cued", "numbers"}
    await world.append({"prompt": "call 13812345678", "completion": "a"})
    await world.deidentify(dataset.DEIDENTIFY_MASK)
    feed = await world.get()
    assert (feed.demands.deidentify, feed.demands.keep) == (dataset.DEIDENTIFY_MASK, "answer != 'drop'")
    await world.flush()
    await world.work()
    (asked,) = await world.asked()
    assert "13812345678" not in asked


async def test_what_cannot_be(world):
    with pytest.raises(NotFound):
        await world.append(row(0))
    await world.feed()
    with pytest.raises(NotFound):
        request = dataset.CreateFeedRequest(parent="projects/p/datasets/e", feed=dataset.Feed(display_name="x"))
        await world.servicer.CreateFeed(request, None)
    wrong = dataset.UpdateFeedRequest(feed=dataset.Feed(name=FEED))
    wrong.update_mask.paths.append("taken_rows")
    with pytest.raises(Invalid, match="taken_rows"):
        await world.servicer.UpdateFeed(wrong, None)
