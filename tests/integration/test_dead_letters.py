"""Dead letters through the contract and the client, over a real nats-server: listed, sent again, handled once."""

import asyncio
import json
import uuid
from contextlib import asynccontextmanager

import pytest
from rpc_echo import allow_all

from kit.bus import Bus, Consumer, EventServicer, Relay, letters
from kit.bus.cloud_events import encode
from kit.rpc.client import connect
from kit.rpc.errors import Invalid, NotFound, StateConflict, Unavailable
from kit.rpc.interceptors import interceptors
from kit.rpc.server import serve
from kit.store import Database
from services.gateway.event_logs import EventLogs
from sluice import AsyncClient
from sluice.events import v1 as events
from sluice.trainer import v1 as trainer
from tests.bus_parts import emit, pair, running, until
from tests.servers import nats_server

CREATED = "sluice.trainer.v1.training_job.created"
SECRET = "content that nobody but the handler may see"


@pytest.fixture
async def server(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        yield server


@pytest.fixture
async def fresh(server):
    async with pair(server) as services:
        yield services


@asynccontextmanager
async def client_of(database: Database, bus: Bus):
    """A client of a gateway that passes on to the registry, whose letters these are."""
    layers, add = interceptors(allow_all, lambda *_: None), events.add_EventServiceServicer_to_server
    async with await serve("127.0.0.1:0", [(add, EventServicer(database, bus))], layers) as registry:
        async with connect(registry.address, retries=False) as behind:
            logs = EventLogs(events.EventServiceServicer(), {"registry": behind})  # type: ignore[arg-type]
            async with await serve("127.0.0.1:0", [(add, logs)], layers) as gateway:
                async with AsyncClient(gateway.address, "key", "p") as client:
                    yield client


async def lie(bus: Bus, *payloads: bytes) -> None:
    """Puts letters among the registry's dead ones, as its consumer does."""
    await bus.provision_stream("dead")
    for payload in payloads:
        headers = {"Sluice-Event-Id": f"id-{payload.decode()}", "Sluice-Subject": CREATED, "Sluice-Size": "3"}
        await bus.jetstream.publish("sluice.dead.registry", payload, headers=headers)


def count(bus: Bus, wanted: int):
    async def there() -> bool:
        return len(await letters(bus)) == wanted

    return there


async def test_poison_is_listed_and_after_the_repair_has_its_effect_once(fresh):
    broken, bus = True, fresh.registry_bus

    async def handler(unit, event, message):
        if message.training_job == SECRET and broken:
            raise KeyError(SECRET)
        await fresh.handle(unit, event, message)

    consumer = Consumer(fresh.registry, bus, "registry", {trainer.TrainingJobCreated: handler}, backoff_s=0.01)
    async with client_of(fresh.registry, bus) as client, running(Relay(fresh.trainer, fresh.trainer_bus), consumer):
        log = client.events("registry")
        assert await log.dead_letters() == []
        ids = await emit(fresh.trainer, "good", SECRET)
        await fresh.trainer_bus.jetstream.publish(CREATED, b"{}")  # never to be handled
        await until(count(bus, 2))
        by_id = {each.id: each for each in await log.dead_letters()}
        bad, undecodable = by_id.pop(ids[1]), by_id.popitem()[1]
        assert (bad.service, bad.type, bad.replayable) == ("registry", CREATED, True)
        assert "KeyError" in bad.reason and bad.size_bytes > 100 and bad.bury_time.seconds
        assert undecodable.id.startswith("SLUICE_TRAINER-") and "CloudEvent" in undecodable.reason
        assert SECRET not in f"{bad}{undecodable}"

        with pytest.raises(NotFound, match="there is no dead letter `other`"):
            await log.replay(ids[1], "other")
        assert [each.id for each in await log.replay(ids[1][:13])] == [ids[1]]  # too early: it fails again
        await until(count(bus, 2))
        again = {each.id: each for each in await log.dead_letters()}[ids[1]]
        assert (again.type, again.reason) == (bad.type, bad.reason)

        broken = False
        assert len(await log.replay()) == 2
        await until(lambda: fresh.has(2))
        await until(count(bus, 1))
        assert [each.id for each in await log.dead_letters()] == [undecodable.id]  # still the place where it was
        await log.replay()
        await until(count(bus, 1))
    assert await fresh.done() == ["good", SECRET]


async def test_a_repeated_request_gets_its_answer_and_sends_what_was_left(fresh):
    await lie(fresh.registry_bus, b"{1}", b"{2}")
    servicer = EventServicer(fresh.registry, fresh.registry_bus)
    request = events.ReplayDeadLettersRequest(ids=["id-{2}", "id-{1}"], request_id=str(uuid.uuid4()))
    first = await servicer.ReplayDeadLetters(request, None)
    assert first.ids == ["id-{1}", "id-{2}"]
    await lie(fresh.registry_bus, b"{2}")  # as if it had not been sent
    assert await servicer.ReplayDeadLetters(request, None) == first
    assert await letters(fresh.registry_bus) == []
    with pytest.raises(NotFound, match=r"registry has no dead letter `id-.*`; `sluice events dead` lists"):
        await servicer.ReplayDeadLetters(events.ReplayDeadLettersRequest(ids=["id-{2}"]), None)


async def test_all_are_listed_in_pages_however_many_read_at_once(fresh, server):
    wanted = [str(number).encode() for number in range(150)]
    await lie(fresh.registry_bus, *wanted)
    servicer = EventServicer(fresh.registry, fresh.registry_bus)
    found, sizes, request = [], [], events.ListDeadLettersRequest(page_size=70)
    while True:
        page = await servicer.ListDeadLetters(request, None)
        assert page.total_size == 150
        sizes.append(len(page.dead_letters))
        found += [each.id for each in page.dead_letters]
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert sizes == [70, 70, 10] and found == [f"id-{payload.decode()}" for payload in wanted]
    with pytest.raises(Invalid):
        await servicer.ListDeadLetters(events.ListDeadLettersRequest(page_token="x"), None)
    for each in await asyncio.gather(*(letters(fresh.registry_bus) for _ in range(3))):
        assert len(each) == 150
    replica = await server.bus("registry")
    assert len(await letters(replica)) == 150
    await replica.close()


async def test_what_was_too_large_to_be_kept_says_so(fresh):
    large = events.Event(id="e3", type=CREATED, source="trainer", data_json=json.dumps({"note": "x" * 1_030_000}))
    consumer = Consumer(fresh.registry, fresh.registry_bus, "registry", fresh.handlers)
    async with running(consumer), client_of(fresh.registry, fresh.registry_bus) as client:
        await fresh.trainer_bus.provision_stream()
        await fresh.trainer_bus.jetstream.publish(CREATED, encode(large))
        await until(count(fresh.registry_bus, 1))
        log = client.events("registry")
        [letter] = await log.dead_letters()
        assert not letter.replayable and letter.size_bytes > 1_030_000
        with pytest.raises(StateConflict, match="too large to be kept"):
            await log.replay(letter.id)
        assert await log.replay() == []


async def test_without_a_bus_the_answer_says_what_to_look_at(fresh, server):
    async with client_of(fresh.registry, fresh.registry_bus) as client:
        server.kill()

        async def away() -> bool:
            return not fresh.registry_bus.ready

        await until(away)
        for call in (client.events("registry").dead_letters(), client.events("registry").replay("some-id")):
            with pytest.raises(Unavailable, match="the event bus is down; `sluice status`"):
                await call
