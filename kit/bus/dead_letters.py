"""Events that a consumer could not handle: put aside, listed, and sent to that consumer again on request."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from nats.aio.msg import Msg
from nats.js.api import Header

from kit.bus.connection import AWAY, BROKER_ERRORS, Bus
from kit.bus.names import DEAD_STREAM, dead_subject, replay_subject
from kit.rpc.errors import StateConflict, Unavailable

SUBJECT, REASON, EVENT_ID, SIZE = "Sluice-Subject", "Sluice-Reason", "Sluice-Event-Id", "Sluice-Size"
MAX_KEPT = 1000 * 1024  # of an event that is too large for the broker with our headers, only the headers are kept
BATCH = 32  # letters held in memory, each at most 1 MiB
STALL_S = 5.0


@dataclass(frozen=True)
class DeadLetter:
    """What is known of an event that was put aside; never its data."""

    sequence: int  # in the stream of the dead letters
    id: str  # of the event; where it could not be read, its place such as `SLUICE_TRAINER-17`
    subject: str
    reason: str
    size_bytes: int
    bury_time: datetime
    kept: bool  # False: too large, so that there is nothing to send again


async def bury(bus: Bus, service: str, message: Msg, place: str, event_id: str, reason: str) -> None:
    """Puts a message aside and returns when the broker has it. ``reason`` is one line without content."""
    before = message.headers or {}  # of a dead letter that was sent again and failed again
    headers = {
        SUBJECT: _word(before.get(SUBJECT, message.subject)),
        REASON: reason.encode("ascii", "replace").decode(),
        EVENT_ID: _word(event_id or before.get(EVENT_ID, place)),
        SIZE: str(len(message.data)),
        Header.MSG_ID.value: f"{service}-{place}",  # buried twice when the first acknowledgement got lost
    }
    kept = message.data if len(message.data) <= MAX_KEPT else b""
    await bus.provision_stream("dead")
    await bus.jetstream.publish(dead_subject(service), kept, timeout=10.0, headers=headers)


async def letters(bus: Bus) -> list[DeadLetter]:
    """The dead letters of the bus's service that were not sent again yet, oldest first. Raises Unavailable."""
    async with _waiting(bus) as found:
        return [letter for letter, _ in found]


async def replay(bus: Bus, ids: Collection[str]) -> list[str]:
    """Sends dead letters to the service's consumer again; returns the ids of those that were there, oldest first.

    One that fails again becomes a dead letter again. Raises StateConflict for one that was too large to be kept, before
    any is sent, and Unavailable while the broker is away: what was sent until then is sent.
    """
    async with _waiting(bus, ids) as found:
        chosen = [(letter, message) for letter, message in found if letter.id in ids]
        for letter, _ in chosen:
            check_kept(letter)
        for letter, message in chosen:
            headers = {SUBJECT: letter.subject, EVENT_ID: letter.id}
            await bus.jetstream.publish(replay_subject(bus.service), message.data, timeout=10.0, headers=headers)
            await message.ack_sync(timeout=5.0)
        return [letter.id for letter, _ in chosen]


def check_kept(letter: DeadLetter) -> None:
    """Raises StateConflict when there is nothing to send again."""
    if not letter.kept:
        raise StateConflict(
            f"dead letter `{letter.id}` was too large to be kept and cannot be sent again; it goes after 30 days",
            resource=("DeadLetter", letter.id),
        )


@contextlib.asynccontextmanager
async def _waiting(bus: Bus, wanted: Collection[str] = ()) -> AsyncIterator[list[tuple[DeadLetter, Msg]]]:
    """Every dead letter that is not acknowledged, oldest first; what the block does not acknowledge is put back.

    The data is held of those wanted only. The lock is there because two readers of one durable would halve the
    letters between them.
    """
    durable, found = f"{bus.service}_dead", dict[int, tuple[DeadLetter, Msg]]()
    async with bus.reading_dead_letters:
        with _answering():
            await bus.provision_stream("dead")
            await bus.provision_durable(
                DEAD_STREAM, durable, [dead_subject(bus.service)], ack_wait_s=30.0, max_ack_pending=100_000
            )
            try:
                await _pull(bus, durable, wanted, found)
                yield [found[sequence] for sequence in sorted(found)]
            finally:
                with contextlib.suppress(*BROKER_ERRORS):  # then the broker takes them back by itself
                    for _, message in found.values():
                        if not message.is_acked:
                            await message.nak()


async def _pull(bus: Bus, durable: str, wanted: Collection[str], found: dict[int, tuple[DeadLetter, Msg]]) -> None:
    """Fills ``found`` with all that the broker has. Raises Unavailable when another process holds some of it."""
    client, loop = bus.client, asyncio.get_running_loop()
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    ask = json.dumps({"batch": BATCH, "no_wait": True}).encode()
    last = loop.time()
    try:
        while len(found) < await _outstanding(bus, durable):
            before = len(found)
            await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{DEAD_STREAM}.{durable}", ask, reply=inbox)
            for _ in range(BATCH):
                message = await subscription.next_msg(timeout=STALL_S)
                if message.headers and "Status" in message.headers:
                    break
                letter = _letter(message)
                if letter.id not in wanted:
                    message.data = b""
                found[letter.sequence] = (letter, message)
            if len(found) > before:
                last = loop.time()
            elif loop.time() - last > STALL_S:
                raise Unavailable(
                    f"another process is reading the dead letters of {bus.service}; try again in half a minute",
                    retry_after_s=30.0,
                )
            else:
                await asyncio.sleep(0.02)  # what was put back just now is not on offer yet
    finally:
        with contextlib.suppress(*BROKER_ERRORS):
            await subscription.unsubscribe()


async def _outstanding(bus: Bus, durable: str) -> int:
    """How many letters are not acknowledged: those never given out, and those given out and perhaps put back."""
    info = await bus.jetstream.consumer_info(DEAD_STREAM, durable)
    return (info.num_pending or 0) + (info.num_ack_pending or 0)


@contextlib.contextmanager
def _answering() -> Iterator[None]:
    """What the broker's silence means to a caller."""
    try:
        yield
    except BROKER_ERRORS as error:
        raise Unavailable(AWAY, retry_after_s=2.0) from error


def _letter(message: Msg) -> DeadLetter:
    headers, metadata = message.headers or {}, message.metadata
    return DeadLetter(
        metadata.sequence.stream,
        headers.get(EVENT_ID, ""),
        headers.get(SUBJECT, ""),
        headers.get(REASON, ""),
        int(headers.get(SIZE, len(message.data))),
        metadata.timestamp,
        bool(message.data),
    )


def _word(text: str) -> str:
    """Fit for a header: poison may call itself anything."""
    return re.sub(r"[^\x21-\x7e]", "?", text[:200])
