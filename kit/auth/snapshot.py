"""All keys that work and all projects: an immutable table that calls read and the registry's stream replaces."""

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Self

import grpc

from kit.auth.keys import digest
from kit.auth.principal import Principal
from kit.auth.tokens import Identity
from kit.telemetry import get_log
from sluice.registry import v1 as registry

log = get_log(__name__)

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
#: How long a project may take from the registry to here before it is taken for a mistyped one.
NEW_S = 0.5


@dataclass(frozen=True)
class KeyTable:
    """SHA-256 of a secret → (its principal, when it ends or None), at one revision of the registry."""

    revision: int = 0
    keys: Mapping[bytes, tuple[Principal, datetime | None]] = field(default_factory=dict)
    #: Names of all projects.
    projects: frozenset[str] = frozenset()

    @classmethod
    def from_response(cls, response: registry.WatchAccessResponse) -> Self:
        """Read the registry's message."""
        keys: dict[bytes, tuple[Principal, datetime | None]] = {}
        for record in response.keys:
            bindings = frozenset((binding.project, int(binding.role)) for binding in record.role_bindings)
            expires = record.expire_time.ToDatetime(UTC) if record.HasField("expire_time") else None
            keys[bytes(record.secret_sha256)] = (Principal(record.principal, bindings), expires)
        return cls(response.revision, MappingProxyType(keys), frozenset(response.projects))

    def find(self, secret: str, now: datetime) -> Principal | None:
        """Return whose secret this is; None when it is unknown or its time is over."""
        principal, expires = self.keys.get(digest(secret), (None, None))
        return None if expires is not None and expires <= now else principal


class AccessSnapshot:
    """Holds the present table; the last good one stays while the registry is away."""

    def __init__(self) -> None:
        self._table: KeyTable | None = None
        self._arrived = asyncio.Event()
        self._swapped = asyncio.Event()  # another one after every swap
        self._on_swap: list[Callable[[KeyTable], None]] = []

    @property
    def ready(self) -> bool:
        """Whether a table has arrived since the start."""
        return self._table is not None

    @property
    def table(self) -> KeyTable:
        """The present table; an empty one before the first has arrived."""
        return self._table or KeyTable()

    def swap(self, table: KeyTable) -> None:
        """Replace the table for every call from now on."""
        self._table = table
        for told in self._on_swap:
            told(table)
        self._arrived.set()
        self._swapped.set()
        self._swapped = asyncio.Event()

    def on_swap(self, told: Callable[[KeyTable], None]) -> None:
        """Call `told` with every table from now on, and at once with the present one if there is one."""
        self._on_swap.append(told)
        if self._table is not None:
            told(self._table)

    async def has_project(self, name: str) -> bool:
        """Whether the project exists. One that was made a moment ago has `NEW_S` to become known here.

        Before the first table, which only matters where nobody needs a key, all are taken to exist.
        """
        if not self.ready or name in self.table.projects:
            return True
        with suppress(TimeoutError):
            async with asyncio.timeout(NEW_S):
                while name not in self.table.projects:
                    await self._swapped.wait()
        return name in self.table.projects

    async def wait_until_ready(self) -> None:
        """Return when a table has arrived."""
        await self._arrived.wait()

    async def follow(
        self,
        stub: "registry.AccessServiceAsyncStub",
        identity: Identity | None = None,
        pause: Callable[[float], float] = lambda longest_s: random.uniform(0.5, 1.0) * longest_s,
    ) -> None:
        """Keep the table equal to the registry's until cancelled; nothing else ends it.

        `identity` signs the stream's token; leave it out when the channel already does. `pause` turns the
        longest pause before the next attempt into the one that is made.
        """
        longest_s = _FIRST_PAUSE_S
        while True:
            try:
                async for response in self._subscribe(stub, identity):
                    self.swap(KeyTable.from_response(response))
                    longest_s = _FIRST_PAUSE_S
                cause = "ended"
            except grpc.aio.AioRpcError as error:
                cause = error.code().name
            except Exception:  # the keys in use must outlive any fault of one message
                log.error("access_stream_failed", exc_info=True)
                cause = "INTERNAL"
            log.warning("access_stream_lost", cause=cause, ready=self.ready)
            await asyncio.sleep(pause(longest_s))
            longest_s = min(longest_s * 2, _LONGEST_PAUSE_S)

    def _subscribe(
        self, stub: "registry.AccessServiceAsyncStub", identity: Identity | None
    ) -> "grpc.aio.UnaryStreamCall[registry.WatchAccessRequest, registry.WatchAccessResponse]":
        metadata = (("authorization", f"Bearer {identity.token('registry')}"),) if identity else None
        return stub.WatchAccess(registry.WatchAccessRequest(), metadata=metadata)
