"""Events over a real nats-server: from the outbox of one service into the inbox of another."""

import asyncio
import contextlib
import json

import nats.errors
import pytest
from nats.aio.client import Client
from nats.js.errors import APIError
from sqlmodel import select

from kit.auth.principal import Principal
from kit.bus import Bus, Consumer, EventServicer, Reconciler, Relay, Retention, letters, replay
from kit.bus.cloud_events import Undecodable, decode, decode_data, encode
from kit.bus.inlets import stream
from kit.bus.outbox import to_event
from kit.rpc.call import Call, acting, system_call
from kit.rpc.errors import StateConflict, Unavailable
from kit.rpc.ports import free_port
from kit.store import Database, OutboxRow
from kit.store.tables import KIT
from sluice.events import v1 as events
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types
from tests.bus_parts import emit, pair, running, unpublished, until
from tests.servers import nats_server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
async def fresh(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        async with pair(server) as services:
            yield services


async def test_each_event_has_its_effect_once_and_in_order(fresh):
    async with running(Relay(fresh.trainer, fresh.trainer_bus)):
        async with running(Consumer(fresh.registry, fresh.registry_bus, "registry", fresh.handlers)):
            names = [f"j{n}" for n in range(20)]
            await emit(fresh.trainer, *names)
            await until(lambda: fresh.has(20))
    assert await fresh.done() == names
    assert await unpublished(fresh.trainer) == 0


async def test_events_wait_for_a_broker_and_connect_never_hangs(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        server.kill()
        async with asyncio.timeout(20):
            bus = await server.bus("trainer", wait_s=0.2)
        assert not bus.ready
        with pytest.raises(Unavailable):
            bus.client
        database = await Database.open("sqlite://", service="trainer")
        await database.create_tables(KIT)
        await emit(database, "a")
        async with running(Relay(database, bus)):
            server.start()
            await until(lambda: _none(database))
        await bus.close()
        await database.close()


async def _none(database: Database) -> bool:
    return await unpublished(database) == 0


async def test_a_wrong_password_is_not_ready_and_says_so_in_time(server):
    bus = await Bus.connect(server.url, "trainer", "wrong", "trainer", wait_s=0.5)
    assert not bus.ready
    await bus.close()


async def test_a_handler_that_needs_another_try_gets_it(fresh):
    tries = []

    async def handler(unit, event, message):
        tries.append(event.id)
        if len(tries) < 3:
            raise StateConflict("not yet")
        await fresh.handle(unit, event, message)

    handlers = {trainer.TrainingJobCreated: handler}
    consumer = Consumer(fresh.registry, fresh.registry_bus, "registry", handlers, backoff_s=0.05)
    async with running(Relay(fresh.trainer, fresh.trainer_bus), consumer):
        await emit(fresh.trainer, "a")
        await until(lambda: fresh.has(1))
    assert len(tries) == 3
    assert await letters(fresh.registry_bus) == []


async def test_a_handler_that_always_fails_is_buried_others_flow_and_replay_brings_it_back(fresh):
    broken = True

    async def handler(unit, event, message):
        if message.training_job == "bad" and broken:
            raise KeyError("secret")
        await fresh.handle(unit, event, message)

    handlers = {trainer.TrainingJobCreated: handler}
    consumer = Consumer(fresh.registry, fresh.registry_bus, "registry", handlers, backoff_s=0.02)

    async def buried() -> bool:
        return len(await letters(fresh.registry_bus)) == 1

    async with running(Relay(fresh.trainer, fresh.trainer_bus), consumer):
        ids = await emit(fresh.trainer, "bad", "good", "fine")
        await until(lambda: fresh.has(2))
        await until(buried)
        letter = (await letters(fresh.registry_bus))[0]
        assert letter.id == ids[0]
        assert letter.subject == "sluice.trainer.v1.training_job.created"
        assert "KeyError" in letter.reason and "secret" not in letter.reason
        broken = False
        assert await replay(fresh.registry_bus, ["another"]) == []
        assert await replay(fresh.registry_bus, [ids[0]]) == [ids[0]]
        await until(lambda: fresh.has(3))
    assert sorted(await fresh.done()) == ["bad", "fine", "good"]
    assert await letters(fresh.registry_bus) == []


async def test_poison_is_buried_at_once_and_others_flow(fresh):
    """Not JSON, no CloudEvent, an unknown enum, too large, and one that claims another subject."""
    changed = {trainer.TrainingJobChanged: fresh.handle}
    consumer = Consumer(fresh.registry, fresh.registry_bus, "registry", changed | fresh.handlers)
    subject = "sluice.trainer.v1.training_job.changed"
    event = events.Event(
        id="e1", type=subject, source="trainer", subject="x", data_json='{"state":"JOB_STATE_DREAMING"}'
    )
    forged = events.Event(id="e2", type=subject.replace("trainer", "dataset"), source="dataset", data_json="{}")
    large = events.Event(id="e3", type=subject, source="trainer", data_json=json.dumps({"note": "x" * 900_000}))
    poison = [b"\xff\x00", b"[" * 100_000, b"{}", encode(event), encode(forged), encode(large)]

    async def buried() -> bool:
        return len(await letters(fresh.registry_bus)) == len(poison)

    async with running(Relay(fresh.trainer, fresh.trainer_bus), consumer):
        await emit(fresh.trainer, "first")
        await until(lambda: fresh.has(1))
        for payload in poison:
            await fresh.trainer_bus.jetstream.publish(subject, payload)
        await emit(fresh.trainer, "last")
        await until(lambda: fresh.has(2))
        await until(buried)
    assert await fresh.done() == ["first", "last"]


async def test_duplicates_out_of_order_have_one_effect_each(fresh):
    ids = await emit(fresh.trainer, "a", "b", "c")
    async with fresh.trainer.read() as session:
        rows = {row.id: row for row in (await session.exec(select(OutboxRow))).all()}
    await fresh.trainer_bus.provision_stream()
    for round in range(10):
        for id in ids[::-1] if round % 2 == 0 else ids:
            payload = encode(to_event(rows[id], "trainer"))
            await fresh.trainer_bus.jetstream.publish(rows[id].type, payload)  # no message id: the broker keeps all
    async with running(Consumer(fresh.registry, fresh.registry_bus, "registry", fresh.handlers)):
        await until(lambda: fresh.has(3))

        async def drained() -> bool:
            info = await fresh.registry_bus.jetstream.consumer_info("SLUICE_TRAINER", "registry")
            return info.num_pending == 0 and info.num_ack_pending == 0

        await until(drained)
    assert sorted(await fresh.done()) == ["a", "b", "c"]
    assert await fresh.inbox() == 3


async def test_a_service_says_and_hears_only_what_is_its_own(server):
    bus = await server.bus("trainer")
    await bus.provision_stream()
    refused = []

    async def on_error(error: Exception) -> None:
        refused.append(str(error))

    who = server.credentials["registry"]
    client = Client()
    await client.connect(server.url, user=who.user, password=who.password, error_cb=on_error, allow_reconnect=False)
    forbidden = [
        "sluice.trainer.v1.training_job.succeeded",
        "sluice.dead.trainer",
        "$JS.API.STREAM.DELETE.SLUICE_TRAINER",
        "$JS.API.STREAM.PURGE.SLUICE_TRAINER",
        "$JS.API.CONSUMER.MSG.NEXT.SLUICE_TRAINER.evaluator",
        "$JS.ACK.SLUICE_TRAINER.evaluator.1.1.1.1.1",
    ]
    for subject in forbidden:
        await client.publish(subject, b"{}")
    await client.subscribe("sluice.>")
    await client.subscribe("_INBOX.trainer.>")
    await client.flush()

    async def all_refused() -> bool:
        violations = [error for error in refused if "permissions violation" in error.lower()]
        return len(violations) == len(forbidden) + 2

    await until(all_refused)  # the refusals may come after the answer to flush
    await client.close()
    assert (await bus.jetstream.stream_info("SLUICE_TRAINER")).state.messages == 0
    await bus.close()
    anonymous = Client()
    with pytest.raises((nats.errors.Error, OSError, TimeoutError)):
        await asyncio.wait_for(anonymous.connect(server.url, allow_reconnect=False, error_cb=on_error), 3)


async def test_passwords_stay_private_and_survive_a_new_config(server):
    before = dict(server.credentials)
    from kit.bus import write_config

    assert write_config(server.folder, free_port(), server.services) == before
    for name in ("nats.conf", "credentials.json"):
        assert (server.folder / name).stat().st_mode & 0o777 == 0o600


def test_newer_fields_are_ignored_and_newer_enum_values_are_not():
    event = events.Event(
        id="1", type="t", data_json='{"training_job":"a","added_later":{"x":1},"state":"JOB_STATE_RUNNING"}'
    )
    assert decode_data(event, trainer.TrainingJobChanged).state == types.JOB_STATE_RUNNING
    event.data_json = '{"state":"JOB_STATE_LATER"}'
    with pytest.raises(Undecodable):
        decode_data(event, trainer.TrainingJobChanged)
    whole = events.Event(
        id="1",
        type="t",
        source="s",
        subject="中",
        traceparent="00-a-b-01",
        data_json='{"x":1}',
        sequence=7,
        principal="p",
    )
    whole.time.FromJsonString("2026-11-21T12:00:00.123456Z")
    assert decode(encode(whole)) == whole


class Log:
    """A service's event log called in process, as its stub would be."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self.servicer = EventServicer(database, bus)

    async def ListEvents(self, request, timeout=None):
        return await self.servicer.ListEvents(request, None)


async def test_the_reconciler_finds_what_the_broker_never_brought(fresh):
    names = [f"j{n}" for n in range(12)]
    await emit(fresh.trainer, *names)
    reconciler = Reconciler(
        fresh.registry,
        "registry",
        {"trainer": Log(fresh.trainer, fresh.trainer_bus)},
        fresh.handlers,
        grace_s=0,
        every_s=0.1,
    )
    async with running(reconciler):
        await until(lambda: fresh.has(12))
    assert await reconciler.reconcile("trainer") == 0
    await emit(fresh.trainer, "later")
    assert await reconciler.reconcile("trainer") == 1
    assert await fresh.done() == [*names, "later"]


async def test_the_reconciler_leaves_fresh_events_to_the_broker(fresh):
    await emit(fresh.trainer, "a")
    reconciler = Reconciler(
        fresh.registry, "registry", {"trainer": Log(fresh.trainer, fresh.trainer_bus)}, fresh.handlers
    )
    assert await reconciler.reconcile("trainer") == 0
    assert await fresh.done() == []


async def test_the_event_log_pages_and_shows_each_caller_its_projects(fresh):
    async with fresh.trainer.begin() as unit:
        for project in ("p", "q", "p_", "p"):
            unit.emit(trainer.TrainingJobCreated(training_job="x"), subject=f"projects/{project}/trainingJobs/1")
    servicer = EventServicer(fresh.trainer, fresh.trainer_bus)

    async def listed(*bindings: tuple[str, int], service: str = "") -> list[str]:
        seen, token = [], ""
        with acting(Call(Principal("who", frozenset(bindings), service))):
            while True:
                page = await servicer.ListEvents(events.ListEventsRequest(page_size=1, page_token=token), None)
                seen += [event.subject.split("/")[1] for event in page.events]
                token = page.next_page_token
                if not token:
                    return seen

    assert await listed(service="registry") == ["p", "q", "p_", "p"]
    assert await listed(("projects/p", types.ROLE_AUDITOR)) == ["p", "p"]
    assert await listed(("projects/-", types.ROLE_ADMIN)) == ["p", "q", "p_", "p"]
    assert await listed(("projects/p", types.ROLE_INFERENCE)) == []
    assert await listed() == []


async def test_an_event_says_who_caused_it(fresh):
    """The caller of an rpc, and the service itself where there is none; on the bus as well as in the log."""
    await emit(fresh.trainer, "by itself")
    with acting(Call(Principal("projects/p/apiKeys/ci", frozenset()), "/rpc")):
        await emit(fresh.trainer, "asked for")
    log = EventServicer(fresh.trainer, fresh.trainer_bus)
    with acting(Call(Principal("services/registry", frozenset(), "registry"))):
        told = (await log.ListEvents(events.ListEventsRequest(), None)).events
    assert [event.principal for event in told] == ["services/unnamed", "projects/p/apiKeys/ci"]
    assert json.loads(encode(told[1]))["principal"] == "projects/p/apiKeys/ci"
    seen = []

    async def handler(unit, event, message):
        seen.append(event.principal)
        await fresh.handle(unit, event, message)

    consumer = Consumer(fresh.registry, fresh.registry_bus, "registry", {trainer.TrainingJobCreated: handler})
    with acting(system_call("registry")):
        async with running(Relay(fresh.trainer, fresh.trainer_bus), consumer):
            await until(lambda: fresh.has(2))
    assert seen == [event.principal for event in told]
    async with fresh.registry.read() as session:
        effects = (await session.exec(select(OutboxRow.principal))).all()
    assert effects == ["services/registry"] * 2  # what a handler does, the service does


async def test_watching_the_log_gives_what_is_committed_next(fresh):
    await emit(fresh.trainer, "a")
    servicer = EventServicer(fresh.trainer, fresh.trainer_bus, poll_s=60)
    stream = servicer.WatchEvents(events.WatchEventsRequest(after_sequence=0), None)
    assert (await anext(stream)).event.sequence == 1
    following = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await emit(fresh.trainer, "b")
    assert (await asyncio.wait_for(following, 20)).event.sequence == 2
    await stream.aclose()


async def test_a_watch_may_begin_at_a_time(fresh):
    await emit(fresh.trainer, "a")
    await emit(fresh.trainer, "b")
    servicer = EventServicer(fresh.trainer, fresh.trainer_bus, poll_s=60)
    listed = await servicer.ListEvents(events.ListEventsRequest(), None)
    second = servicer.WatchEvents(events.WatchEventsRequest(since=listed.events[1].time), None)
    assert (await anext(second)).event == listed.events[1]
    await second.aclose()


async def test_the_copies_of_a_stream_follow_their_setting(server):
    bus = await server.bus("evaluator", Retention(replicas=3))
    with pytest.raises(APIError, match="replicas > 1 not supported in non-clustered mode"):
        await bus.provision_stream()  # so a cluster was asked for three
    await bus.close()


async def test_the_retention_of_a_stream_follows_its_setting(server):
    for seconds in (120.0, 30.0):
        bus = await server.bus("dataset", Retention(duplicate_window_s=seconds))
        info = await bus.provision_stream()
        assert (info.config.duplicate_window, info.config.discard) == (seconds, "new")
        await bus.close()


async def test_an_inlet_that_holds_more_than_it_should_loses_nothing(server):
    bus = await server.bus("gateway", Retention(max_waiting=3))
    without = stream("gateway", max_bytes=1 << 20, replicas=1).evolve(
        max_msgs_per_subject=-1, discard_new_per_subject=False, discard="old"
    )
    await bus.jetstream.add_stream(without)
    kept = 0

    async def send(subject):
        nonlocal kept
        await bus.jetstream.publish(f"sluice.gateway.v1.{subject}", b"")
        kept += 1

    async def send_on():
        for _ in range(200):  # while its limits change
            with contextlib.suppress(APIError):
                await send("full")

    for _ in range(20):
        await send("full")
    sending = asyncio.create_task(send_on())
    await bus.provision_inlet("gateway")
    await sending
    info = await bus.provision_inlet("gateway")
    assert kept == info.state.messages >= 20
    assert info.config.max_msgs_per_subject == kept and info.config.max_bytes == Retention().max_bytes
    with pytest.raises(APIError, match="maximum messages per subject exceeded"):
        await send("full")
    await send("other")

    subscription = await bus.jetstream.pull_subscribe("", durable="gateway", stream="SLUICE_GATEWAY")
    for message in await subscription.fetch(kept):
        await message.ack_sync()

    async def as_wanted():
        return (await bus.provision_inlet("gateway")).config.max_msgs_per_subject == 3

    await until(as_wanted)
    await bus.close()
