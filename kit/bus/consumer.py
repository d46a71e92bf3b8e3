"""Pulls events from the broker and has each handled once; what cannot be handled goes to the dead letters."""

import asyncio
import json
import random
from collections import OrderedDict

import nats.js.errors
from google.protobuf.message import Message
from nats.aio.msg import Msg
from nats.js.api import StatusCode

from kit.bus import dead_letters
from kit.bus.cloud_events import Undecodable, decode
from kit.bus.connection import BROKER_ERRORS, Bus
from kit.bus.inbox import Handlers, Inbox
from kit.bus.names import DEAD_STREAM, replay_subject, source_of, sources, stream_of
from kit.rpc.errors import Exhausted, Fault, Unavailable
from kit.store import Database, failpoint
from kit.store.unit import MAX_EVENT_BYTES
from kit.telemetry import count, get_log
from sluice.events import v1 as events

log = get_log("sluice.bus")
BATCH = 32  # events held in memory, each at most 1 MiB
PULL_S = 5.0
MAX_BYTES = MAX_EVENT_BYTES + 16 * 1024  # the data and its envelope


class Consumer:
    """One durable per source stream, named after the service; its replicas share the work."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        service: str,
        handlers: Handlers,
        *,
        attempts: int = 5,
        backoff_s: float = 1.0,
        ack_wait_s: float = 30.0,
    ) -> None:
        """An event whose handler failed ``attempts`` times is buried; between them ``backoff_s`` × 1, 2, 4, …

        Unavailable, Exhausted and too little time are no fault of the event: it comes again until they end.
        """
        self.bus = bus
        self.service = service
        self.inbox = Inbox(database, service, handlers)
        self.attempts = attempts
        self.backoff_s = backoff_s
        self.ack_wait_s = ack_wait_s
        self._sources = sources(handlers)
        self._failures: OrderedDict[str, int] = OrderedDict()

    async def run(self) -> None:
        """Handles events until cancelled; broker and database may come and go."""
        async with asyncio.TaskGroup() as group:
            for source, subjects in self._sources.items():
                group.create_task(self._keep_pulling(stream_of(source), subjects))
            group.create_task(self._keep_pulling(DEAD_STREAM, [replay_subject(self.service)]))

    async def _keep_pulling(self, stream: str, subjects: list[str]) -> None:
        delay = 0.1
        while True:
            try:
                await self.bus.wait_ready()
                if stream == DEAD_STREAM:
                    await self.bus.provision_stream("dead")
                await self.bus.provision_durable(stream, self.service, subjects, ack_wait_s=self.ack_wait_s)
                delay = 0.1
                await self._pull(stream)
            except nats.js.errors.NotFoundError:
                delay = min(delay, 1.0)  # its service has not started yet
            except (Fault, *BROKER_ERRORS) as error:
                log.info("waiting for events", service=self.service, stream=stream, cause=type(error).__name__)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, 5.0)

    async def _pull(self, stream: str) -> None:
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
                for _ in range(BATCH):
                    message = await subscription.next_msg(timeout=PULL_S + 2.0)
                    status = (message.headers or {}).get("Status") if not message.data else None
                    if status == StatusCode.REQUEST_TIMEOUT:
                        break
                    if status is not None:
                        raise nats.js.errors.APIError(code=int(status))
                    await self.take(message)
        finally:
            if not client.is_closed:
                await subscription.unsubscribe()

    async def take(self, message: Msg) -> None:
        """Handles one message of the broker: acknowledged, to come again, or buried."""
        try:
            event = self._event(message)
        except Undecodable as error:
            await self._bury(message, "", str(error))
            return
        try:
            if self.inbox.wants(event):
                async with asyncio.timeout(self.ack_wait_s * 0.8):
                    handled = await self.inbox.handle(event)
                count("sluice_events_handled_total", service=self.service, type=event.type, repeated=not handled)
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

    def _event(self, message: Msg) -> events.Event:
        if len(message.data) > MAX_BYTES:
            raise Undecodable(f"larger than {MAX_BYTES} bytes")
        event = decode(message.data)
        if message.subject not in (event.type, replay_subject(self.service)) or source_of(event.type) != event.source:
            # The broker lets each service publish on its own subjects only; an event must not claim another's.
            raise Undecodable("subject, type and source disagree")
        return event

    async def _failed(self, message: Msg, event: events.Event, error: Exception) -> None:
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

    async def _again(self, message: Msg, event: events.Event, error: Exception, times: int) -> None:
        delay = min(self.backoff_s * 2 ** min(times - 1, 10), 30.0)
        cause = type(error).__name__
        log.warning("a handler failed; again later", service=self.service, event_id=event.id, cause=cause)
        await message.nak(delay=delay * random.uniform(0.8, 1.2))

    async def _bury(self, message: Msg, event_id: str, reason: str) -> None:
        place = f"{message.metadata.stream}-{message.metadata.sequence.stream}"
        await dead_letters.bury(self.bus, self.service, message, place, event_id, reason)
        if event_id:
            await self.inbox.bury(event_id)
        await message.term()
        count("sluice_events_buried_total", service=self.service)
        log.error("an event was buried", service=self.service, event_id=event_id, place=place, reason=reason)


def consumed_services(handlers: Handlers | set[type[Message]]) -> list[str]:
    """The services whose events these handlers take, for ``nats_server.write_config``."""
    return sorted(sources(handlers))
