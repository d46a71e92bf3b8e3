"""One service's line to the broker: always coming back, with its streams and durables in place; it knows no event."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, StorageType, StreamConfig, StreamInfo

from kit.bus import inlets
from kit.bus.names import DEAD_STREAM, stream_of, subjects_of
from kit.rpc.errors import Unavailable
from kit.telemetry import get_log

log = get_log("sluice.bus")
ATTEMPT_S = 3.0
AWAY = "the event bus is down; `sluice status` shows whether `nats` runs, and events wait in the outbox until it does"
#: What is brought up to date in a stream that is there; dead letters are everybody's, so only their copies.
KEPT = ("subjects", "discard", "duplicate_window", "max_age", "max_bytes", "num_replicas")
#: The same of an inlet.
KEPT_OF_INLETS = (*KEPT, "max_msg_size", "max_msgs_per_subject", "discard_new_per_subject")
BROKER_ERRORS = (nats.errors.Error, asyncio.TimeoutError, OSError)


@dataclass(frozen=True)
class Retention:
    """How long the broker keeps events, and recognizes one sent twice; the outbox keeps them for ever."""

    duplicate_window_s: float = 120.0
    max_age_s: float = 7 * 86400.0
    max_bytes: int = 1 << 30
    #: Servers of a cluster that keep each event; one server can keep one copy only.
    replicas: int = 1
    #: Of events of outside systems: what waits of one subject at most.
    max_waiting: int = inlets.MAX_WAITING


class Bus:
    """Connects in the background for ever: nothing here waits without a limit for a broker that is down."""

    def __init__(self, url: str, user: str, password: str, service: str, retention: Retention) -> None:
        """For ``connect`` only."""
        self.service = service
        self.retention = retention
        self._options: dict[str, Any] = {"servers": url, "user": user, "password": password}
        self._client: Client | None = None
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.generation = 0  # counts connects
        self.reading_dead_letters = asyncio.Lock()
        self._on_connect: list[Callable[[], None]] = []

    @classmethod
    async def connect(
        cls,
        url: str,
        user: str,
        password: str,
        service: str,
        *,
        retention: Retention | None = None,
        wait_s: float = 0.0,
    ) -> Self:
        """Starts connecting and returns at once, or as soon as it is connected but no later than after ``wait_s``."""
        bus = cls(url, user, password, service, retention or Retention())
        bus._task = asyncio.create_task(bus._keep_connected(), name=f"bus-{service}")
        if wait_s:
            with contextlib.suppress(TimeoutError):
                await bus.wait_ready(wait_s)
        return bus

    @property
    def ready(self) -> bool:
        """Whether the broker answers at present."""
        return self._connected.is_set()

    async def wait_ready(self, timeout_s: float | None = None) -> None:
        """Waits until connected. Raises TimeoutError."""
        await asyncio.wait_for(self._connected.wait(), timeout_s)

    def on_connect(self, callback: Callable[[], None]) -> None:
        """Calls back after each connect, the first and every later one."""
        self._on_connect.append(callback)

    @property
    def client(self) -> Client:
        """The present connection. Raises Unavailable while there is none."""
        if self._client is None or not self._connected.is_set():
            raise Unavailable(AWAY, retry_after_s=2.0)
        return self._client

    @property
    def jetstream(self) -> JetStreamContext:
        """JetStream on the present connection. Raises Unavailable while there is none."""
        return JetStreamContext(self.client, timeout=5.0)

    async def close(self) -> None:
        """Ends the connection and the attempts at one."""
        self._closed = True
        while self._task is not None and not self._task.done():
            self._task.cancel()  # more than once: wait_for may lose a cancellation that meets its own end
            await asyncio.wait([self._task], timeout=1.0)

    async def provision_stream(self, service: str = "") -> StreamInfo:
        """Makes sure of a stream: this service's own, or with ``service="dead"`` that of the dead letters."""
        dead = service == "dead"
        config = StreamConfig(
            name=DEAD_STREAM if dead else stream_of(self.service),
            subjects=["sluice.dead.*", "sluice.replay.*"] if dead else [subjects_of(self.service)],
            storage=StorageType.FILE,
            discard=DiscardPolicy.OLD if dead else DiscardPolicy.NEW,
            duplicate_window=self.retention.duplicate_window_s,
            max_age=30 * 86400.0 if dead else self.retention.max_age_s,
            max_bytes=self.retention.max_bytes,
            num_replicas=self.retention.replicas,
        )
        return await self._provision(config, ("num_replicas",) if dead else KEPT)

    async def provision_inlet(self, source: str) -> StreamInfo:
        """Makes sure of the stream that outside systems send to; the service that takes their events has it."""
        kept = self.retention
        config = inlets.stream(source, kept.max_waiting, max_bytes=kept.max_bytes, replicas=kept.replicas)
        return await self._provision(config, KEPT_OF_INLETS)

    async def _provision(self, config: StreamConfig, kept: Iterable[str]) -> StreamInfo:
        jetstream = self.jetstream
        try:
            info = await jetstream.stream_info(str(config.name))
        except nats.js.errors.NotFoundError:
            return await jetstream.add_stream(config)
        if not _differs(info.config, config, kept):
            return info
        if _is_lower(config.max_msgs_per_subject, info.config.max_msgs_per_subject):
            # The broker would delete the oldest of what is above a limit. So it is raised to what is there, and nothing
            # is let in meanwhile; should we die before it is opened again, whoever comes next finds that it differs.
            closed = info.config.evolve(discard=DiscardPolicy.NEW, max_bytes=1)
            held = (await jetstream.update_stream(closed)).state.messages
            config = config.evolve(max_msgs_per_subject=max(config.max_msgs_per_subject or 0, held))
        return await jetstream.update_stream(config)

    async def provision_durable(
        self, stream: str, durable: str, subjects: list[str], *, ack_wait_s: float = 30.0, max_ack_pending: int = 256
    ) -> None:
        """Makes sure of a durable consumer with just this configuration; `pull_subscribe` would keep an old one's.

        Raises nats' NotFoundError while the stream is not there yet.
        """
        config = ConsumerConfig(
            name=durable,
            durable_name=durable,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ack_wait_s,
            max_ack_pending=max_ack_pending,
            max_deliver=-1,  # the consumer counts and buries; the broker would drop in silence
            filter_subject=subjects[0] if len(subjects) == 1 else None,
            filter_subjects=subjects if len(subjects) > 1 else None,
        )
        await self.jetstream.add_consumer(stream, config)

    async def _keep_connected(self) -> None:
        delay = 0.1
        while not self._closed:
            try:
                await self._attempt()
                delay = 0.1
                self.generation += 1
                self._connected.set()
                for callback in self._on_connect:
                    callback()
                await self._lost.wait()
                log.warning("lost the event broker; connecting again", service=self.service)
            except BROKER_ERRORS as error:
                log.info("the event broker does not answer", service=self.service, cause=type(error).__name__)
                delay = min(delay * 2, 2.0)
            finally:
                self._connected.clear()
                await self._drop()
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))

    async def _attempt(self) -> None:
        """One try. nats-py's own reconnecting is off: its first connect would never return without a broker."""
        lost, client = asyncio.Event(), Client()

        async def on_closed() -> None:
            lost.set()
            self._connected.clear()

        async def on_error(error: Exception) -> None:
            log.debug("broker", service=self.service, cause=type(error).__name__)

        self._client, self._lost = client, lost
        await asyncio.wait_for(
            client.connect(
                **self._options,
                name=self.service,
                inbox_prefix=f"_INBOX.{self.service}",
                allow_reconnect=False,
                connect_timeout=2,
                ping_interval=4,
                max_outstanding_pings=2,
                closed_cb=on_closed,
                error_cb=on_error,
            ),
            ATTEMPT_S,
        )
        if lost.is_set():
            raise ConnectionError

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(*BROKER_ERRORS, asyncio.InvalidStateError):
                await asyncio.wait_for(client.close(), 2.0)


def _is_lower(limit: int | None, present: int | None) -> bool:
    """None and what is not above 0 stand for no limit."""
    return limit is not None and limit > 0 and (present is None or present <= 0 or limit < present)


def _differs(present: StreamConfig, wanted: StreamConfig, fields: Iterable[str]) -> bool:
    return any(getattr(present, field) != getattr(wanted, field) for field in fields)
