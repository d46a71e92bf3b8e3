"""Pulls events from the broker and has each handled once; what cannot be handled goes to the dead letters."""

import asyncio
import json
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial

import nats.js.errors
from google.protobuf.message import Message
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import StatusCode

from kit.bus import dead_letters
from kit.bus.cloud_events import Undecodable, decode
from kit.bus.connection import BROKER_ERRORS, Bus
from kit.bus.inbox import Handlers, Inbox
from kit.bus.inlets import Inlets, OutsideEvent
from kit.bus.inlets import read as read_outside
from kit.bus.names import DEAD_STREAM, replay_subject, source_of, sources, stream_of, subjects_of
from kit.rpc.errors import Exhausted, Fault, Unavailable
from kit.store import Database, failpoint
from kit.store.unit import MAX_EVENT_BYTES
from kit.telemetry import count, get_log
from sluice.events import v1 as events

log = get_log("sluice.bus")
BATCH = 32  # events held in memory, each at most 1 MiB
#: Of an inlet every event may wait for its next try: those of one subject that nobody can take hold up no others.
NO_LIMIT = -1
#: How long events of such a subject go back untried after one of them met with Exhausted.
NO_ROOM_S = 2.0
PULL_S = 5.0
MAX_BYTES = MAX_EVENT_BYTES + 16 * 1024  # the data and its envelope
Step = Callable[[], Awaitable[bool]]


class Consumer:
    """One durable per source stream, named after the service; its replicas share the work."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        service: str,
        handlers: Handlers,
        inlets: Inlets | None = None,
        *,
        attempts: int = 5,
        backoff_s: float = 1.0,
        ack_wait_s: float = 30.0,
    ) -> None:
        """``inlets`` says what is done with what outside systems send.

        An event whose handler failed ``attempts`` times is buried; between them ``backoff_s`` × 1, 2, 4, …

        Unavailable, Exhausted and too little time are no fault of the event: it comes again until they end.
        """
        self.bus = bus
        self.service = service
        self.inbox = Inbox(database, service, handlers)
        self.attempts = attempts
        self.backoff_s = backoff_s
        self.ack_wait_s = ack_wait_s
        self._sources = sources(handlers)
        self._inlets = dict(inlets or {})
        self._failures: OrderedDict[str, int] = OrderedDict()
        #: Subjects of inlets for which there was no room, and until when it is taken that there is none.
        self._no_room: dict[str, float] = {}

    async def run(self) -> None:
        """Handles events until cancelled; broker and database may come and go."""
        async with asyncio.TaskGroup() as group:
            for source, subjects in self._sources.items():
                group.create_task(self._keep_pulling(stream_of(source), subjects))
            for source in self._inlets:
                group.create_task(self._keep_pulling(stream_of(source), [subjects_of(source)], inlet=source))
            group.create_task(self._keep_pulling(DEAD_STREAM, [replay_subject(self.service)]))

    async def _keep_pulling(self, stream: str, subjects: list[str], inlet: str = "") -> None:
        delay = 0.1
        while True:
            try:
                await self.bus.wait_ready()
                if stream == DEAD_STREAM:
                    await self.bus.provision_stream("dead")
                if inlet:
                    await self.bus.provision_inlet(inlet)
                more = {"max_ack_pending": NO_LIMIT} if inlet else {}
                await self.bus.provision_durable(stream, self.service, subjects, ack_wait_s=self.ack_wait_s, **more)
                delay = 0.1
                await self._pull(stream, inlet)
            except nats.js.errors.NotFoundError:
                delay = min(delay, 1.0)  # its service has not started yet
            except (Fault, *BROKER_ERRORS) as error:
                log.info("waiting for events", service=self.service, stream=stream, cause=type(error).__name__)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, 5.0)

    async def _pull(self, stream: str, inlet: str) -> None:
        """Asks for batches and handles what comes, until the broker says that the durable is gone or says nothing.

        nats-py's own ``fetch`` holds the first event of a batch back until the batch is full or late.
        """
        client = self.bus.client
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox)
        ask = json.dumps({"batch": BATCH, "expires": int(PULL_S * 1e9)}).encode()
        try:
            while True:
                await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{self.service}", ask, reply=inbox)
                left = BATCH
                while left and (message := await _next(subscription)) is not None:
                    some = [message]
                    while inlet and subscription.pending_msgs and len(some) < left:
                        if (message := await _next(subscription)) is None:
                            left = 0
                            break
                        some.append(message)
                    left = max(0, left - len(some))
                    await self._take_all(inlet, some)
        finally:
            if not client.is_closed:
                await subscription.unsubscribe()

    async def take(self, message: Msg) -> None:
        """Handles one message of the broker: acknowledged, to come again, or buried."""
        try:
            event, kind, handle = self._step(message)
        except Undecodable as error:
            await self._bury(message, "", str(error))
            return
        try:
            if handle is not None:
                async with asyncio.timeout(self.ack_wait_s * 0.8):
                    handled = await handle()
                count("sluice_events_handled_total", service=self.service, type=kind, repeated=not handled)
        except Undecodable as error:
            await self._bury(message, event.id, str(error))
        except (Unavailable, Exhausted, TimeoutError) as error:  # a slow disk is no fault of the event
            await self._again(message, event, error, message.metadata.num_delivered)
        except Exception as error:
            await self._failed(message, event, error)
        else:
            self._failures.pop(event.id, None)
            failpoint("before_ack")
            await message.ack()
            failpoint("after_ack")

    async def _take_all(self, inlet: str, messages: list[Msg]) -> None:
        """Handles messages together where they can be, else those of each subject together, else each alone."""
        messages = [message for message in messages if not await self._sent_back(message)]
        if len(messages) > 1 and await self._take_together(inlet, messages):
            return
        by_subject: dict[str, list[Msg]] = {}
        for message in messages:
            by_subject.setdefault(message.subject, []).append(message)
        for group in by_subject.values():
            if len(messages) > len(group) > 1 and await self._take_together(inlet, group):
                continue
            for message in group:
                await self.take(message)

    async def _sent_back(self, message: Msg) -> bool:
        """Whether an event is of a subject that had no room a moment ago; then it has gone back."""
        if time.monotonic() >= self._no_room.get(message.subject, 0.0):
            return False
        await self._nak(message, message.metadata.num_delivered)
        return True

    async def _take_together(self, inlet: str, messages: list[Msg]) -> bool:
        """Handles what has come on an inlet in one unit; False when that fails: then fewer are to be taken."""
        some = []
        try:
            some = [read_outside(message.subject, message.data) for message in messages]
            async with asyncio.timeout(self.ack_wait_s * 0.5):  # time is left for those who are to be taken alone
                handled = await self.inbox.handle_outside(some, self._inlets[inlet])
        except Exhausted as error:
            if len({message.subject for message in messages}) > 1:
                return False
            for message, event in zip(messages, some, strict=True):  # there is no room for any of them
                await self._again(message, event, error, message.metadata.num_delivered)
            return True
        except Exception as error:
            log.info("taken by fewer", service=self.service, events=len(messages), cause=type(error).__name__)
            return False
        count("sluice_events_handled_total", handled, service=self.service, type=inlet, repeated=False)
        failpoint("before_ack")
        for message in messages:
            await message.ack()
        return True

    def _step(self, message: Msg) -> tuple[events.Event | OutsideEvent, str, Step | None]:
        """The event, its type, and what is to be done; None for nothing. Raises Undecodable."""
        subject = message.subject
        if subject == replay_subject(self.service):  # only services send there
            subject = (message.headers or {}).get(dead_letters.SUBJECT, "")
        source = next((source for source in self._inlets if subject.startswith(subjects_of(source)[:-1])), "")
        if source:
            outside = read_outside(subject, message.data)
            return outside, source, partial(self._take_outside, outside, source)
        event = self._event(message)
        return event, event.type, partial(self.inbox.handle, event) if self.inbox.wants(event) else None

    async def _take_outside(self, event: OutsideEvent, source: str) -> bool:
        return bool(await self.inbox.handle_outside([event], self._inlets[source]))

    def _event(self, message: Msg) -> events.Event:
        if len(message.data) > MAX_BYTES:
            raise Undecodable(f"larger than {MAX_BYTES} bytes")
        event = decode(message.data)
        if message.subject not in (event.type, replay_subject(self.service)) or source_of(event.type) != event.source:
            # The broker lets each service publish on its own subjects only; an event must not claim another's.
            raise Undecodable("subject, type and source disagree")
        return event

    async def _failed(self, message: Msg, event: events.Event | OutsideEvent, error: Exception) -> None:
        failures = self._failures.pop(event.id, 0) + 1
        if failures >= self.attempts:
            log.error("a handler failed for the last time", service=self.service, event_id=event.id, exc_info=error)
            reason = error.reason_name if isinstance(error, Fault) else type(error).__name__
            await self._bury(message, event.id, f"handler failed {failures} times, last with {reason}")
            return
        self._failures[event.id] = failures
        if len(self._failures) > 10_000:
            self._failures.popitem(last=False)
        await self._again(message, event, error, failures)

    async def _again(self, message: Msg, event: events.Event | OutsideEvent, error: Exception, times: int) -> None:
        if isinstance(error, Exhausted) and isinstance(event, OutsideEvent):
            self._no_room[event.subject] = time.monotonic() + NO_ROOM_S
        cause = type(error).__name__
        log.warning("a handler failed; again later", service=self.service, event_id=event.id, cause=cause)
        await self._nak(message, times)

    async def _nak(self, message: Msg, times: int) -> None:
        delay = min(self.backoff_s * 2 ** min(times - 1, 10), 30.0)
        await message.nak(delay=delay * random.uniform(0.8, 1.2))

    async def _bury(self, message: Msg, event_id: str, reason: str) -> None:
        place = f"{message.metadata.stream}-{message.metadata.sequence.stream}"
        await dead_letters.bury(self.bus, self.service, message, place, event_id, reason)
        if event_id:
            await self.inbox.bury(event_id)
        await message.term()
        count("sluice_events_buried_total", service=self.service)
        log.error("an event was buried", service=self.service, event_id=event_id, place=place, reason=reason)


async def _next(subscription: Subscription) -> Msg | None:
    """The next message; None when the broker says that this was all. What it says itself asks for no answer."""
    message = await subscription.next_msg(timeout=PULL_S + 2.0)
    status = (message.headers or {}).get("Status") if not message.data and not message.reply else None
    if status is not None and status != StatusCode.REQUEST_TIMEOUT:
        raise nats.js.errors.APIError(code=int(status))
    return message if status is None else None


def consumed_services(handlers: Handlers | set[type[Message]]) -> list[str]:
    """The services whose events these handlers take, for ``nats_server.write_config``."""
    return sorted(sources(handlers))
