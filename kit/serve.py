"""Puts the six libraries together in the one order every service starts in; what the service does is passed in."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import grpc

from kit import telemetry
from kit.auth import AccessSnapshot, Authenticator, Identity, Verifier, authorize
from kit.blobs import EncryptedBlobs, FileKek, open_store
from kit.bus import (
    Bus,
    Consumer,
    EventServicer,
    Handlers,
    Inlets,
    Reconciler,
    Relay,
    Retention,
    Sift,
    consumed_services,
)
from kit.rpc.call import enter, system_call
from kit.rpc.client import connect
from kit.rpc.errors import Fault
from kit.rpc.interceptors import interceptors
from kit.rpc.interceptors.auth import Refused
from kit.rpc.server import Server, serve
from kit.settings import Settings
from kit.store import Database, alone, migrate
from sluice.events import v1 as events
from sluice.registry import v1 as registry

log = telemetry.get_log(__name__)

SHUTDOWN_S = 15.0
Loop = Callable[[], Coroutine[Any, Any, None]]
StubT = TypeVar("StubT")
SettingsT = TypeVar("SettingsT")


@dataclass
class Runtime:
    """What a process has once its libraries are up; the composition root of a service passes it on by value."""

    settings: Settings
    identity: Identity
    access: AccessSnapshot
    authenticator: Authenticator
    _channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    def channel(self, peer: str) -> grpc.aio.Channel:
        """The channel to another service, under this service's own identity."""
        if peer not in self._channels:
            audience = "gateway" if peer == "engine-host" else peer
            address = self.settings.address(peer)
            self._channels[peer] = connect(address, token=lambda: self.identity.token(audience))
        return self._channels[peer]

    def stub(self, peer: str, kind: type[StubT]) -> StubT:
        """A stub of another service, such as ``stub("registry", registry.ModelServiceStub)``."""
        return kind(self.channel(peer))  # type: ignore[call-arg]

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels.values():
            await channel.close()


@asynccontextmanager
async def process(
    settings: Settings, name: str = "", *, own_access: AccessSnapshot | None = None
) -> AsyncIterator[Runtime]:
    """Telemetry, identity and access of one process; ``name`` when it is not the service's main one.

    ``own_access`` is given by the service that owns the keys; all others follow its stream.
    """
    about = telemetry.configure(
        name or settings.service,
        otlp_endpoint=settings.otlp_endpoint,
        trace_folder=settings.home / "logs" / "traces",
        log_level=settings.log_level,
    )
    enter(system_call(settings.service))
    identity = _identity(settings)
    access = own_access or AccessSnapshot()
    verifier = Verifier(settings.identity_folder)
    authenticator = Authenticator(access, verifier, service=settings.service, enabled=settings.enable_auth)
    if not settings.enable_auth:
        log.warning("auth_disabled", meaning="ENABLE_AUTH=false: everybody who reaches a port may do everything")
    runtime = Runtime(settings, identity, access, authenticator)

    def follow() -> Coroutine[Any, Any, None]:
        return access.follow(cast(Any, runtime.stub("registry", registry.AccessServiceStub)))

    try:
        async with background([] if own_access else [follow]):
            yield runtime
    finally:
        await runtime.close()
        about.shutdown()


def _identity(settings: Settings) -> Identity:
    path = settings.identity_folder / f"{settings.service}.key"
    try:
        return Identity.load(path)
    except FileNotFoundError:
        raise ValueError(
            f"there is no identity key `{path}`; start the suite with `sluice up`, or set SLUICE_IDENTITY"
        ) from None


def blob_store(settings: Settings) -> EncryptedBlobs:
    """The blob store of the settings. Raises ValueError naming the key-encryption key when it is not there."""
    try:
        kek = FileKek.load(settings.kek_path, home=settings.home)
    except FileNotFoundError:
        raise ValueError(
            f"there is no key-encryption key `{settings.kek_path}`; restore it from its backup, or set SLUICE_KEK"
        ) from None
    return open_store(settings.blobs_url, kek)


@dataclass(frozen=True)
class Application:
    """What makes a service more than its libraries."""

    #: Pairs (generated add function, servicer).
    servicers: Iterable[tuple[Any, object]]
    #: What it does on events of others.
    handlers: Handlers = field(default_factory=dict)
    #: What it does on events of outside systems.
    inlets: Inlets = field(default_factory=dict)
    #: Loops that run as long as it does.
    loops: Iterable[Loop] = ()
    generic_handlers: Iterable[grpc.GenericRpcHandler] = ()
    #: Full names of further services that reflection shows.
    reflected: Iterable[str] = ()
    #: Which of its events a member of their project may see; absent means all.
    sift: Sift | None = None
    #: Is told the messages of calls that their callers have no role for.
    refused: Refused | None = None
    #: What serves EventService, given the one that reads the own log.
    event_log: Callable[[EventServicer], events.EventServiceServicer] = lambda own: own


@asynccontextmanager
async def storage(settings: Settings, package: Path) -> AsyncIterator[Database]:
    """The migrated database of the service whose package folder is ``package``; SQLite's for this process alone."""
    async with alone(settings.database_url):
        database = await Database.open(settings.database_url, service=settings.service)
        try:
            await migrate(database, package / "migrations" / "versions")
            yield database
        finally:
            await database.close()


@asynccontextmanager
async def serving(runtime: Runtime, database: Database, application: Application) -> AsyncIterator[Server]:
    """Everything that talks: rpcs, the outbox relay, the consumer, the reconciler and the loops."""
    settings, service = runtime.settings, runtime.settings.service
    async with AsyncExitStack() as stack:
        retention = Retention(settings.duplicate_window_s, replicas=settings.nats_replicas)
        bus = await Bus.connect(
            settings.nats_url, user=service, password=settings.nats_password, service=service, retention=retention
        )
        stack.push_async_callback(bus.close)
        loops: list[Loop] = [Relay(database, bus).run, *application.loops]
        if application.handlers or application.inlets:
            handlers = application.handlers
            logs: dict[str, Any] = {
                each: runtime.stub(each, events.EventServiceStub) for each in consumed_services(handlers)
            }
            reconciler = Reconciler(database, service, logs, handlers, every_s=settings.reconcile_s)
            bus.on_connect(reconciler.wake)
            loops += [Consumer(database, bus, service, handlers, application.inlets).run, reconciler.run]
        event_log = application.event_log(EventServicer(database, bus, sift=application.sift))
        server = await serve(
            settings.address(service),
            [*application.servicers, (events.add_EventServiceServicer_to_server, event_log)],
            interceptors(runtime.authenticator, authorize, runtime.access.has_project, application.refused),
            generic_handlers=list(application.generic_handlers),
            reflected=application.reflected,
        )
        await stack.enter_async_context(server)
        if settings.enable_auth and not runtime.access.ready:
            await server.set_serving(False)  # a key that works must not be refused by one who says it serves
            loops.append(partial(_serve_with_keys, server, runtime.access))
        await stack.enter_async_context(background(loops))
        log.info("serving", address=settings.address(service))
        yield server


async def _serve_with_keys(server: Server, access: AccessSnapshot) -> None:
    await access.wait_until_ready()
    await server.set_serving(True)


@asynccontextmanager
async def background(loops: Iterable[Loop]) -> AsyncIterator[None]:
    """Runs loops beside the block. A loop that raises ends the process: the supervisor starts it again, and
    nothing goes on half dead."""
    tasks = [asyncio.create_task(loop(), name=getattr(loop, "__qualname__", "loop")) for loop in loops]
    for task in tasks:
        task.add_done_callback(_end_process)
    try:
        yield
    finally:
        for task in tasks:
            task.remove_done_callback(_end_process)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _end_process(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("loop_died", loop=task.get_name(), exc_info=task.exception())
        signal.raise_signal(signal.SIGTERM)


def stop_asked(within_s: float = SHUTDOWN_S) -> asyncio.Event:
    """Set at SIGTERM or SIGINT; ``within_s`` later this process is over, with status 1 if it has to be forced.

    Neither a thread that checks a large upload nor a start that waits for its database can be cancelled.
    """
    asked = asyncio.Event()
    overdue = threading.Timer(within_s, os._exit, (1,))
    overdue.daemon = True

    def ask() -> None:
        if not asked.is_set():
            asked.set()
            overdue.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ask)
    return asked


def run(
    load: Callable[[Mapping[str, str]], SettingsT],
    application: Callable[[SettingsT], Any],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """The ``main`` of every process: reads the environment, serves until SIGTERM; a mistake is one sentence."""

    async def serve_until_stopped(settings: SettingsT) -> None:
        asked = stop_asked()  # before the start: who serves already may be told to end already
        async with application(settings):
            await asked.wait()

    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(serve_until_stopped(load(os.environ)))
    except (ValueError, Fault) as error:
        raise SystemExit(f"error: {error}") from error
