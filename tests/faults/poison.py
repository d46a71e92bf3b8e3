"""Every event of a suite sent again to its bus, among others that nobody can handle; what lies dead then is known."""

import asyncio
import json
import random
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

import nats.errors
import pytest

from kit.bus import Bus, letters
from kit.bus.cloud_events import encode
from kit.bus.names import stream_of
from services.suite.home import CONSUMES
from sluice.events import v1 as events
from tests.bus_parts import until
from tests.pipeline import Pipeline
from tests.seed import SEED

CONSUMERS = tuple(service for service, sources in CONSUMES.items() if sources)
ENUM = re.compile(r'"(ARTIFACT_KIND|MODEL_VERSION_STATE|VERDICT)_[A-Z_]+"')
Buses = dict[str, Bus]


@dataclass(frozen=True)
class Sent:
    """A message; poison has the consumer that takes its subject, and the id of its event where one can be read."""

    subject: str
    payload: bytes
    consumer: str = ""
    id: str = ""


async def again(running: Pipeline, times: int) -> None:
    """Sends all events of all services again, shuffled, with no message id that the broker would know, among poison.

    Returns when everything is handled; asserts that the poison became dead letters and nothing else did.
    """
    draw = random.Random(SEED)
    logs: dict[str, list[events.Event]] = defaultdict(list)
    for event in await asyncio.to_thread(running.client.events().list, limit=0):
        logs[event.source].append(event)
    async with AsyncExitStack() as stack:
        buses = {service: await stack.enter_async_context(line(running, service)) for service in CONSUMES}
        wanted = {consumer: await dead(buses, consumer) for consumer in CONSUMERS}
        for source, log in logs.items():
            sending = [Sent(event.type, encode(event)) for event in log] * times
            sending += [each async for each in poison(buses, source, log)]
            draw.shuffle(sending)
            for each in sending:
                stored = await buses[source].jetstream.publish(each.subject, each.payload, timeout=10)
                if each.consumer:
                    wanted[each.consumer].add(each.id or f"{stored.stream}-{stored.seq}")
            with pytest.raises(nats.errors.MaxPayloadError):
                await buses[source].jetstream.publish(log[0].type, b" " * 10_000_000)
        for consumer in CONSUMERS:
            await until(lambda consumer=consumer: handled(buses, consumer), 60)
            found = await dead(buses, consumer)
            assert found == wanted[consumer], f"dead letters of `{consumer}`: {found ^ wanted[consumer]}"


@asynccontextmanager
async def line(running: Pipeline, service: str) -> AsyncIterator[Bus]:
    """The bus as a service may use it."""
    password = json.loads((running.suite.home / "nats" / "credentials.json").read_text())[service]
    url = f"nats://127.0.0.1:{running.suite.ports['nats']}"
    bus = await Bus.connect(url, service, password, service)
    try:
        await bus.wait_ready(30)
        yield bus
    finally:
        await bus.close()


async def poison(buses: Buses, source: str, log: Sequence[events.Event]) -> AsyncIterator[Sent]:
    """On each subject that somebody takes: no JSON, no event, and an event with an enum value that nobody knows."""
    for consumer in CONSUMERS:
        if source in CONSUMES[consumer]:
            info = await buses[consumer].jetstream.consumer_info(stream_of(source), consumer)
            for subject in info.config.filter_subjects or [info.config.filter_subject]:
                yield Sent(subject, b"no JSON", consumer)
                yield Sent(subject, b"{}", consumer)
                for event in [each for each in log if each.type == subject and ENUM.search(each.data_json)][:1]:
                    odd = events.Event(id=str(uuid4()), data_json=ENUM.sub('"MADE_UP"', event.data_json, count=1))
                    known = events.Event()
                    known.CopyFrom(event)
                    known.MergeFrom(odd)
                    yield Sent(subject, encode(known), consumer, known.id)


async def dead(buses: Buses, consumer: str) -> set[str]:
    """The ids of the dead letters of a consumer."""
    return {letter.id for letter in await letters(buses[consumer])}


async def handled(buses: Buses, consumer: str) -> bool:
    """Whether the consumer has acknowledged all that it takes."""
    for source in CONSUMES[consumer]:
        info = await buses[consumer].jetstream.consumer_info(stream_of(source), consumer)
        if info.num_pending or info.num_ack_pending:
            return False
    return True
