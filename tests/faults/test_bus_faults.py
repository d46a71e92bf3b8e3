"""The bus under the faults of faults.md 1 to 4: crashes at each edge, a broker that dies, loses or garbles its data."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from kit.bus import Consumer, Reconciler, Relay, Retention
from kit.store import Database, migrate
from kit.store.tables import KIT
from tests.bus_parts import Pair, emit, pair, running, unpublished, until
from tests.integration.test_bus import Log
from tests.servers import NatsServer, nats_server

SMALL = Retention(duplicate_window_s=1.0)

PROCESS = """
import asyncio, sys
from kit.bus import Bus, Consumer, Relay, Retention
from kit.store import Database
from sluice.trainer import v1 as trainer
role, url, nats_url, user, password, window = sys.argv[1:]

async def handle(unit, event, message):
    unit.emit(trainer.TrainingJobChanged(training_job=message.training_job), subject=message.training_job)

async def main():
    database = await Database.open(url, service=user)
    bus = await Bus.connect(nats_url, user, password, user, retention=Retention(float(window)), wait_s=5)
    work = Relay(database, bus) if role == "relay" else Consumer(
        database, bus, user, {trainer.TrainingJobCreated: handle}, ack_wait_s=1.0)
    await asyncio.wait_for(work.run(), 60)

asyncio.run(main())
"""


async def die_at(point: str, role: str, database_url: str, server: NatsServer, window_s: float = 120.0) -> None:
    """Runs a relay or consumer as its own process until the failpoint has killed it."""
    user = "trainer" if role == "relay" else "registry"
    password = server.credentials[user].password
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROCESS, role, database_url, server.url, user, password, str(window_s)),
        env={**os.environ, "SLUICE_FAILPOINT": f"{point}:kill", "PYTHONPATH": str(Path.cwd())},
        stderr=subprocess.PIPE,
    )
    _, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == -signal.SIGKILL, stderr.decode()[-2000:]


async def on_files(services: Pair, folder: Path) -> tuple[str, str]:
    """Moves both databases of a pair to files that a second process can open."""
    urls = []
    for name in ("trainer", "registry"):
        await getattr(services, name).close()
        url = f"sqlite:///{folder / name}.db"
        database = await Database.open(url, service=name)
        await migrate(database)
        setattr(services, name, database)
        urls.append(url)
    return urls[0], urls[1]


@pytest.fixture
def server(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        yield server


def consumer(services: Pair, **options: float) -> Consumer:
    return Consumer(services.registry, services.registry_bus, "registry", services.handlers, **options)


@pytest.mark.parametrize("beyond_the_window", [False, True])
async def test_a_relay_that_dies_between_publish_and_mark(server, tmp_path, beyond_the_window):
    retention = SMALL if beyond_the_window else Retention()
    async with pair(server, retention) as services:
        url, _ = await on_files(services, tmp_path)
        await emit(services.trainer, "a", "b", "c")
        await die_at("after_publish", "relay", url, server, retention.duplicate_window_s)
        assert await unpublished(services.trainer) == 3
        if beyond_the_window:
            await asyncio.sleep(1.5)  # the broker's own clock; nothing of ours can be waited for
        async with running(Relay(services.trainer, services.trainer_bus), consumer(services)):
            await emit(services.trainer, "d")
            await until(lambda: services.has(4))
        stream = await services.trainer_bus.jetstream.stream_info("SLUICE_TRAINER")
        assert stream.state.messages == (7 if beyond_the_window else 4)
        assert await services.done() == ["a", "b", "c", "d"]
        assert await services.inbox() == 4


@pytest.mark.parametrize("point", ["before_publish", pytest.param("after_mark", marks=pytest.mark.prove)])
async def test_a_relay_that_dies_at_its_other_edges(server, tmp_path, point):
    async with pair(server) as services:
        url, _ = await on_files(services, tmp_path)
        await emit(services.trainer, "a", "b")
        await die_at(point, "relay", url, server)
        async with running(Relay(services.trainer, services.trainer_bus), consumer(services)):
            await until(lambda: services.has(2))
        assert await services.done() == ["a", "b"]


@pytest.mark.parametrize(
    "point",
    [
        "before_ack",
        pytest.param("after_ack", marks=pytest.mark.prove),
        pytest.param("before_commit", marks=pytest.mark.prove),
        pytest.param("after_commit", marks=pytest.mark.prove),
    ],
)
async def test_a_consumer_that_dies_has_each_effect_once(server, tmp_path, point):
    async with pair(server) as services:
        _, url = await on_files(services, tmp_path)
        await emit(services.trainer, "a", "b", "c")
        async with running(Relay(services.trainer, services.trainer_bus)):
            await until(lambda: _drained(services))
        await die_at(point, "consumer", url, server)
        async with running(consumer(services, ack_wait_s=1.0)):
            await until(lambda: services.has(3))
            await until(lambda: _acknowledged(services))
        assert sorted(await services.done()) == ["a", "b", "c"]


async def _drained(services: Pair) -> bool:
    return await unpublished(services.trainer) == 0


async def _acknowledged(services: Pair) -> bool:
    info = await services.registry_bus.jetstream.consumer_info("SLUICE_TRAINER", "registry")
    return info.num_pending == 0 and info.num_ack_pending == 0


async def test_a_broker_killed_and_restarted_under_way(server):
    async with pair(server) as services:
        async with running(Relay(services.trainer, services.trainer_bus), consumer(services, ack_wait_s=2.0)):
            await emit(services.trainer, *(f"a{n}" for n in range(10)))
            server.kill()
            await emit(services.trainer, *(f"b{n}" for n in range(10)))
            server.start()
            assert await until(lambda: services.has(20), 30) < 30
            await until(lambda: _drained(services))
        done = await services.done()
        assert sorted(done) == sorted(set(done)) and len(done) == 20


@pytest.mark.prove
async def test_a_broker_that_hangs_for_a_minute(server):
    async with pair(server) as services:
        async with running(Relay(services.trainer, services.trainer_bus), consumer(services)):
            await emit(services.trainer, "a")
            await until(lambda: services.has(1))
            server.signal(signal.SIGSTOP)
            await emit(services.trainer, "b")
            await asyncio.sleep(60)
            server.signal(signal.SIGCONT)
            assert await until(lambda: services.has(2), 30) < 30
        assert await services.done() == ["a", "b"]


async def test_a_broker_whose_data_was_deleted_gets_it_again(server):
    async with pair(server) as services:
        async with running(Relay(services.trainer, services.trainer_bus)):
            await emit(services.trainer, "a", "b")
            await until(lambda: _drained(services))
            server.kill()
            shutil.rmtree(server.store)
            server.start()
            async with running(consumer(services)):
                await until(lambda: services.has(2), 30)
                await emit(services.trainer, "c")
                await until(lambda: services.has(3), 30)
        assert await services.done() == ["a", "b", "c"]
        assert await services.inbox() == 3


async def test_a_deleted_store_repeats_no_effect(server):
    async with pair(server) as services:
        async with running(Relay(services.trainer, services.trainer_bus), consumer(services)):
            await emit(services.trainer, "a", "b")
            await until(lambda: services.has(2))
            server.kill()
            shutil.rmtree(server.store)
            server.start()
            await emit(services.trainer, "c")
            await until(lambda: services.has(3), 30)
            await until(lambda: _drained(services))
        assert await services.done() == ["a", "b", "c"]


async def test_a_corrupted_block_loses_nothing(server):
    async with pair(server) as services:
        names = [f"j{n}" for n in range(30)]
        async with running(Relay(services.trainer, services.trainer_bus)):
            await emit(services.trainer, *names)
            await until(lambda: _drained(services))
        server.kill()
        for block in server.store.glob("**/SLUICE_TRAINER/msgs/*.blk"):
            content = bytearray(block.read_bytes())
            for place in range(len(content) // 3, len(content), 997):
                content[place] ^= 0xFF
            block.write_bytes(content)
        server.start()
        sources = {"trainer": Log(services.trainer, services.trainer_bus)}
        reconciler = Reconciler(services.registry, "registry", sources, services.handlers, grace_s=0, every_s=1.0)
        services.registry_bus.on_connect(reconciler.wake)
        relay = Relay(services.trainer, services.trainer_bus)
        async with running(relay, consumer(services), reconciler):
            await until(lambda: services.has(30), 30)
            await emit(services.trainer, "after")
            await until(lambda: services.has(31), 30)
        assert sorted(await services.done()) == sorted([*names, "after"])


async def test_a_full_store_keeps_events_in_the_outbox_and_alarms_once(tmp_path, caplog):
    with nats_server(tmp_path / "nats", max_store_bytes=64 << 20) as server:
        async with pair(server, Retention(max_bytes=20_000)) as services:
            relay = Relay(services.trainer, services.trainer_bus)
            async with running(relay):
                await emit(services.trainer, *("x" * 500 + str(n) for n in range(40)))
                await until(lambda: _alarmed(caplog))
                waiting = await unpublished(services.trainer)
                assert 0 < waiting < 40
            await services.trainer_bus.close()
            services.trainer_bus = await server.bus("trainer", Retention(max_bytes=200_000))
            async with running(Relay(services.trainer, services.trainer_bus)):
                await until(lambda: _drained(services))
            alarms = [record for record in caplog.records if "event store is full" in record.message]
            assert len(alarms) == 1


async def _alarmed(caplog: pytest.LogCaptureFixture) -> bool:
    return any("event store is full" in record.message for record in caplog.records)


@pytest.mark.prove
@pytest.mark.postgres
async def test_of_two_relays_on_postgres_one_sends_and_the_other_takes_over(server):
    from tests.servers import new_database, postgres_server

    with postgres_server() as postgres:
        url = await new_database(postgres)
        replicas = [await Database.open(url, service="trainer") for _ in range(2)]
        await replicas[0].create_tables(KIT)
        buses = [await server.bus("trainer") for _ in range(2)]
        relays = [Relay(database, bus, poll_s=0.1) for database, bus in zip(replicas, buses, strict=True)]
        async with running(relays[0]) as leader:
            await emit(replicas[0], "a")
            await until(lambda: _none_waits(replicas[0]))
            async with running(relays[1]):
                await emit(replicas[0], "b")
                await until(lambda: _none_waits(replicas[0]))
                assert await _locks(replicas[0]) == 1
                leader[0].cancel()
                await emit(replicas[0], "c")
                await until(lambda: _none_waits(replicas[0]))
        stream = await buses[0].jetstream.stream_info("SLUICE_TRAINER")
        assert stream.state.messages == 3
        for each in (*buses, *replicas):
            await each.close()


async def _locks(database: Database) -> int:
    """How many leaders there are."""
    async with database.engine.connect() as connection:
        query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        return int((await connection.execute(text(query))).scalar_one())


async def _none_waits(database: Database) -> bool:
    return await unpublished(database) == 0
