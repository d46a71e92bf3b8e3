"""Feeds of a running suite: rows by gRPC and by NATS, under repeats, deaths of the service and poison."""

import asyncio
import json
import uuid

import grpc
import pytest
from nats.js.errors import APIError

from kit.auth import Identity
from kit.bus import Bus, letters, replay
from kit.rpc.errors import Denied, Invalid, NotFound, from_rpc_error
from sluice import AsyncClient, Client
from sluice.client import RowsRefused
from sluice.dataset import v1 as dataset
from sluice.types import v1 as types
from tests.bus_parts import until
from tests.folders import contents, files
from tests.integration.feeds import CRM_COLUMNS, CRM_TICKETS, PACS_COLUMNS, PACS_REPORT, event, outside
from tests.integration.uploads import Uploads, fault_of
from tests.suite import suite


def rows(first, last):
    return [{"prompt": f"q{number}", "completion": f"a{number}"} for number in range(first, last)]


def lines(first, last):
    return b"".join(json.dumps(each).encode() + b"\n" for each in rows(first, last))


@pytest.fixture
async def client(running, project):
    async with AsyncClient(running.address("dataset"), running.key, project) as client:
        yield client


@pytest.fixture
async def mine(running, project):
    async with running.channel("dataset") as channel:
        uploads = Uploads(channel, project)
        await uploads.create()
        yield uploads


async def asked(client, version):
    return [row["messages"][0]["content"] async for row in client.datasets.read(version)]


async def test_rows_are_handed_over_by_the_sdk_and_become_a_version(client, mine):
    feed = await client.datasets.append("d", rows(0, 3))
    assert (feed.name, feed.waiting_rows) == (f"{mine.project}/datasets/d/feeds/default", 3)
    await client.datasets.append("d", [json.dumps(each).encode() for each in rows(3, 5)])
    version = await client.feeds.flush("d")
    assert (version.row_count, version.rows_added, version.base_version) == (5, 5, "")
    assert (await client.datasets.upload_of(version.name)).feed == feed.name
    assert await client.feeds.flush("d") is None
    request_id = str(uuid.uuid4())
    for _ in range(2):  # 6000 rows are two batches
        await client.datasets.append("d", rows(5, 6005), request_id=request_id)
    second = await client.feeds.flush("d")
    assert (second.row_count, second.base_version) == (6005, version.name)
    assert await asked(client, second.name) == [f"q{number}" for number in range(6005)]
    await client.datasets.append("d", [{"prompt": "alone"}])
    with pytest.raises(RowsRefused):
        await client.feeds.flush("d")
    assert (await client.feeds.get("d")).returned_rows == 1
    with pytest.raises(NotFound):
        await client.datasets.append("d/other", rows(0, 1))
    with pytest.raises(Invalid, match="line 1"):
        await client.datasets.append("d", [b"content of a row"])


def test_the_plain_client_has_it_too(running, project):
    with Client(running.address("dataset"), running.key, project) as client:
        with pytest.raises(NotFound):
            client.datasets.append("nothing", rows(0, 1))
        assert client.feeds.list() == []


async def test_who_may_hand_over_rows(running, mine, keys, client):
    await client.feeds.create("d")
    for role, may in ((types.ROLE_ENGINEERING, True), (types.ROLE_INFERENCE, False), (types.ROLE_AUDITOR, False)):
        _, secret = await keys(role)
        async with running.channel("dataset", secret) as channel:
            stub = dataset.FeedServiceStub(channel)
            request = dataset.AppendRowsRequest(name=f"{mine.project}/datasets/d/feeds/default", rows=lines(0, 1))
            for _ in range(100):
                try:
                    await stub.AppendRows(request)
                    fault = None
                except grpc.aio.AioRpcError as error:
                    fault = from_rpc_error(error)
                    if error.code() == grpc.StatusCode.UNAUTHENTICATED:  # the key is not known here yet
                        await asyncio.sleep(0.02)
                        continue
                break
            assert fault is None if may else isinstance(fault, Denied)
    for service, may in (("gateway", True), ("trainer", False)):
        token = Identity.load(running.home / "run" / "identity" / f"{service}.key").token("dataset")
        async with running.channel("dataset", token) as channel:
            call = dataset.FeedServiceStub(channel).AppendRows(request)
            if may:
                assert (await call).row_count == 1
            else:
                assert isinstance(await fault_of(call), Denied)


def report_of(accession):
    """A report of its own."""
    return event(PACS_REPORT, f"{accession}/1", **{**PACS_REPORT["data"], "accession": accession})


async def sent(client, subject, *payloads):
    for payload in payloads:
        await client.jetstream().publish(subject, payload)


async def taken(client, name, count):
    async def enough():
        return (await client.feeds.get(name)).taken_rows >= count

    await until(enough)


async def test_events_of_a_hospital_and_a_bank_become_rows_without_code(running, client, mine):
    pacs = await client.feeds.create("d/pacs", columns=PACS_COLUMNS)
    crm = await client.feeds.create("d/crm", columns=CRM_COLUMNS)
    report, other = report_of("r-1"), report_of("r-2")
    async with outside(running) as systems:
        await sent(systems, pacs.subject, report, other, report)
        await sent(systems, crm.subject, event(CRM_TICKETS, "t-1"), event(CRM_TICKETS, "r-1/1", note="no ticket"))
        await taken(client, "d/pacs", 2)
        await taken(client, "d/crm", 3)
        await sent(systems, pacs.subject, report, report_of("r-3"))
        await taken(client, "d/pacs", 3)
    first, second = await client.feeds.flush("d/pacs"), await client.feeds.flush("d/crm")
    assert (first.row_count, second.rows_added) == (3, 2)
    assert [each.taken_rows for each in await client.feeds.list("d")] == [3, 3]
    row, *others = [each async for each in client.datasets.read(first.name)]
    assert row["messages"][1]["content"] == PACS_REPORT["data"]["impression"]
    assert (row["id"], row["group"]) == ("r-1", PACS_REPORT["data"]["patient"])
    assert [each["id"] for each in others] == ["r-2", "r-3"]
    assert (await client.datasets.upload_of(second.name)).quarantined_rows == 1


async def test_poison_is_put_aside_without_its_content_and_comes_again_on_request(running, client, mine):
    project = mine.project.split("/")[1]
    subject = f"sluice.feed.v1.{project}.d.late"
    good = await client.feeds.create("d/good", columns=PACS_COLUMNS)
    broken = [
        b"secret: no JSON",
        b'{"specversion": "1.0", "id": "secret", "source": "x", "type": "t"}',
        event(PACS_REPORT, "secret-1")[:-20] + b"\xff}}",
        json.dumps({**PACS_REPORT, "specversion": "0.3"}).encode(),
        json.dumps({**PACS_REPORT, "data": "secret"}).encode(),
        json.dumps({**PACS_REPORT, "data": {"rows": ["secret"]}}).encode(),
    ]
    password = json.loads((running.home / "nats" / "credentials.json").read_text())["dataset"]
    bus = await Bus.connect(f"nats://127.0.0.1:{running.ports['nats']}", "dataset", password, "dataset", wait_s=5)
    before = {letter.id for letter in await letters(bus)}

    async def buried():
        return [letter for letter in await letters(bus) if letter.id not in before]

    async def all_buried():
        return len(await buried()) == len(broken) + 2

    try:
        async with outside(running) as systems:
            for payload in broken:  # each among others, all at once
                await systems.publish(good.subject, report_of(f"good-{hash(payload)}"))
                await systems.publish(subject, payload)
            await systems.publish(subject, b"", headers={"Status": "500"})  # as if the broker had said it
            await sent(systems, subject, event(PACS_REPORT, "secret-2"))  # the feed is not there yet
            await until(all_buried)
        await taken(client, "d/good", len(broken))
        found = await buried()
        told = " ".join(f"{letter.id} {letter.reason}" for letter in found)
        assert "there is no such feed" in told and "secret" not in told and "ACC" not in told
        log = (running.home / "logs" / "dataset.log").read_text()
        assert "secret" not in log and "P-4711" not in log
        secret = PACS_REPORT["data"]["findings"].encode()  # the bus holds it, and the service's files do
        stored = dict(contents(files(running.folder)))
        assert any("jetstream" in str(path) for path in stored)
        assert [path for path, held in stored.items() if secret in held or b"secret: no JSON" in held] == []
        await client.feeds.create("d/late", columns=PACS_COLUMNS)
        late = next(letter.id for letter in found if "no such feed" in letter.reason)
        assert await replay(bus, [late]) == [late]
        await taken(client, "d/late", 1)

        async def nothing_left():
            stream = await bus.jetstream.stream_info("SLUICE_FEED")
            assert (stream.config.retention, stream.config.discard) == ("workqueue", "new")
            return stream.state.messages == 0

        await until(nothing_left)
    finally:
        await bus.close()


async def test_a_feed_that_takes_no_more_is_in_the_way_of_no_other(client, mine, running):
    """Nor is an id that two systems give to a message; and what is too large is refused, not taken and put aside."""
    full = await client.feeds.create("d/full", paused=True)
    other = await client.feeds.create("d/other", columns=PACS_COLUMNS)
    for _ in range(10):
        await client.feeds.append("d/full", [b"{}"] * 10_000)
    async with outside(running) as systems:
        jetstream = systems.jetstream()
        same = {"Nats-Msg-Id": "1"}
        first = jetstream.publish(full.subject, event(PACS_REPORT, "x"), headers=same)
        more = [jetstream.publish(full.subject, event(PACS_REPORT, f"x{number}")) for number in range(300)]
        await asyncio.gather(first, *more)  # more than wait for an answer at a time

        async def sent_too():
            return not (await jetstream.publish(other.subject, report_of("o-1"), headers=same)).duplicate

        await until(sent_too)
        await taken(client, "d/other", 1)
        assert (await client.feeds.get("d/full")).taken_rows == 100_000
        with pytest.raises(APIError, match="size exceeds maximum"):
            await jetstream.publish(other.subject, event(PACS_REPORT, "large", findings="x" * (1000 << 10)))
    await client.feeds.delete("d/full", force=True)  # and its events are dead letters


async def test_an_outside_system_may_send_to_feeds_and_nothing_else(running):
    async with outside(running) as systems:
        await systems.publish("sluice.dataset.v1.dataset.created", b"{}")
        await systems.publish("$JS.API.STREAM.INFO.SLUICE_FEED", b"")
        await systems.publish("$JS.API.CONSUMER.MSG.NEXT.SLUICE_FEED.dataset", b"")
        await systems.publish("sluice.replay.dataset", b"")
        await systems.subscribe("sluice.feed.v1.>")
        await systems.subscribe("_INBOX.dataset.>")
        await systems.flush()

        async def refused():
            return len([each for each in systems.refused if "permissions violation" in each.lower()]) == 6

        await until(refused)


async def test_a_thousand_rows_are_each_in_one_version_whenever_the_service_dies(tmp_path):
    """It dies with a piece that is stored and not counted, and right after it handed rows over."""
    trap = tmp_path / "home" / "run" / "arm" / "dataset"
    trap.parent.mkdir(parents=True)
    trap.write_text("feed_piece_stored:kill:4")
    with suite(tmp_path, "registry", "dataset", module="tests.fakes.suite") as broken:
        trap.write_text("feed_handed_over:kill")  # for the next life
        async with AsyncClient(broken.address("dataset"), broken.key, "default") as client:
            async with broken.channel("dataset") as channel:
                await Uploads(channel, "projects/default").create()
            await client.feeds.create("d/f", commit_rows=400)
            for number in range(0, 1000, 50):
                for _ in range(2):  # each batch twice
                    await append(client, number)
            assert (await client.feeds.get("d/f")).taken_rows == 1000
            await client.feeds.flush("d/f")
            assert await asked(client, "d") == [f"q{number}" for number in range(1000)]
            added = [each.rows_added for each in await client.datasets.versions("d")]
        assert sum(added) == 1000 and len(added) > 1 and not trap.exists()
        log = (broken.home / "logs" / "dataset.log").read_text()
        assert log.count("failpoint feed_piece_stored") == log.count("failpoint feed_handed_over") == 1
        staged = broken.home / "blobs" / "projects" / "default" / "uploads"

        async def nothing_left():
            return not files(staged)

        await until(nothing_left)


async def append(client, number):
    """One batch, sent until it is acknowledged, by the same request id."""
    batch = str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))

    async def acknowledged():
        try:
            await client.feeds.append("d/f", rows(number, number + 50), request_id=batch)
        except Exception:
            return False
        return True

    await until(acknowledged, 30)
