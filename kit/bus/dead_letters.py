"""Events that a consumer could not handle: put aside, listed, and sent to that consumer again on request."""

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass

from nats.aio.msg import Msg
from nats.js.api import Header

from kit.bus.connection import Bus
from kit.bus.names import DEAD_STREAM, dead_subject, replay_subject

SUBJECT, REASON, EVENT_ID, SIZE = "Sluice-Subject", "Sluice-Reason", "Sluice-Event-Id", "Sluice-Size"
MAX_KEPT = 1000 * 1024  # of an event that is too large for the broker with our headers, only the headers are kept


@dataclass(frozen=True)
class DeadLetter:
    """What is known of an event that was put aside; never its data."""

    id: str  # of the event; where it could not be read, its place such as `SLUICE_TRAINER-17`
    subject: str
    reason: str
    size_bytes: int


async def bury(bus: Bus, service: str, message: Msg, place: str, event_id: str, reason: str) -> None:
    """Puts a message aside and returns when the broker has it. ``reason`` is one line without content."""
    headers = {
        SUBJECT: message.subject,
        REASON: reason.encode("ascii", "replace").decode(),
        EVENT_ID: event_id or place,
        SIZE: str(len(message.data)),
        Header.MSG_ID.value: f"{service}-{place}",  # buried twice when the first acknowledgement got lost
    }
    kept = message.data if len(message.data) <= MAX_KEPT else b""
    await bus.provision_stream("dead")
    await bus.jetstream.publish(dead_subject(service), kept, timeout=10.0, headers=headers)


async def letters(bus: Bus, service: str) -> list[DeadLetter]:
    """The dead letters of a service that were not sent again yet, oldest first. Raises Unavailable."""
    found = []
    async for message in _pending(bus, service):
        found.append(_letter(message))
        await message.nak()
    return found


async def replay(bus: Bus, service: str, ids: Collection[str] | None = None) -> int:
    """Sends dead letters (all, or those of these event ids) to the service's consumer again; returns how many.

    One that fails again becomes a new dead letter. Raises Unavailable while the broker is away.
    """
    sent, left = 0, []
    async for message in _pending(bus, service):
        letter = _letter(message)
        if not message.data or (ids is not None and letter.id not in ids):
            left.append(message)
            continue
        await bus.jetstream.publish(replay_subject(service), message.data, timeout=10.0)
        await message.ack_sync()
        sent += 1
    for message in left:
        await message.nak()
    return sent


async def _pending(bus: Bus, service: str) -> AsyncIterator[Msg]:
    """Each dead letter that is not acknowledged, once."""
    durable = f"{service}_dead"
    await bus.provision_stream("dead")
    await bus.provision_durable(DEAD_STREAM, durable, [dead_subject(service)], ack_wait_s=60.0, max_ack_pending=100_000)
    client = bus.client
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    ask = json.dumps({"batch": 100, "no_wait": True}).encode()
    seen: set[int] = set()
    try:
        while True:
            await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{DEAD_STREAM}.{durable}", ask, reply=inbox)
            for _ in range(100):
                message = await asyncio.wait_for(subscription.next_msg(timeout=5.0), 6.0)
                if message.headers and "Status" in message.headers:
                    return
                if message.metadata.sequence.stream in seen:
                    return  # put back by our caller already: this is the second round
                seen.add(message.metadata.sequence.stream)
                yield message
    finally:
        await subscription.unsubscribe()


def _letter(message: Msg) -> DeadLetter:
    headers = message.headers or {}
    size = int(headers.get(SIZE, len(message.data)))
    return DeadLetter(headers.get(EVENT_ID, ""), headers.get(SUBJECT, ""), headers.get(REASON, ""), size)
