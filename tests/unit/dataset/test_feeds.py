"""Feeds: when rows are due, what counts as rows, and that every row is in one version in the order of its coming."""

import io
import json
from datetime import UTC, datetime, timedelta

import pytest

from kit.auth.principal import Principal
from kit.blobs import FileKek, open_store
from kit.rpc.call import Call, acting
from kit.rpc.errors import Exhausted, Invalid, NotFound
from services.dataset import checks, commands, parts, reading, store
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


def waiting(rows=0, size=0, since=NOW, **more):
    feed = feeds.new_feed(PARENT, dataset.Feed(display_name="PACS"), "me")
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
    found = convert(io.BytesIO(content), feeds.FILE_NAME, Rules("sft", {"ticket": "id"}, quarantine=True))
    assert found.accepted and found.row_count + found.put_aside == 2


def test_a_feed_and_its_subject_name_each_other():
    feed = feeds.new_feed(PARENT, dataset.Feed(display_name="PACS"), "me")
    assert (feed.name, feed.subject) == (FEED, "sluice.feed.v1.p.d.pacs")
    assert feeds.feed_of(feed.subject) == FEED


class World:
    """The service without its ports: a private database, encrypted files and real checking processes."""

    def __init__(self, database, folder):
        self.database, self.folder = database, folder
        self.blobs = open_store(f"file://{folder / 'blobs'}", FileKek.create(folder / "kek", home=folder / "home"))
        self.spare = checks.Spare()
        self.uploads = UploadSupervisor(database, self.blobs, self.spare, Recent())
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
async def world(database, tmp_path):
    wanted = dataset.Dataset(display_name="d", task_type="sft")
    await database.transact(lambda unit: commands.create_dataset(unit, "projects/p", wanted))
    world = World(database, tmp_path)
    yield world
    await world.spare.close()


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
        feeds.check_demands(dataset.Feed(demands=dataset.RowDemands(max_tokens=5, tokenizer=digest)), "sft")
    with pytest.raises(Invalid, match="cannot be read"):
        feeds.check_demands(dataset.Feed(demands=dataset.RowDemands(keep="length(")), "sft")


def test_a_feed_that_holds_too_much_takes_no_more():
    feed = waiting(rows=feeds.MAX_WAITING_ROWS - 1, paused=True)
    feeds.take(feed, 1, 10, NOW)
    with pytest.raises(Exhausted, match="is paused"):
        feeds.take(feed, 1, 10, NOW)
    with pytest.raises(Exhausted):
        feeds.take(waiting(size=feeds.MAX_WAITING_BYTES), 1, 1, NOW)


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
