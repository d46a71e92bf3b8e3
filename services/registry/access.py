"""The keys that work and the projects there are, read from the database once for all who follow them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from kit.auth import AccessSnapshot, KeyTable
from kit.rpc.errors import Fault
from kit.store import Database, Signal
from kit.telemetry import get_log
from services.registry import store
from sluice.registry import v1 as registry

log = get_log(__name__)


class Keys:
    """Every key that works and every project. After a commit one number is read, and they when it has changed."""

    def __init__(self, database: Database, own: AccessSnapshot) -> None:
        """``own`` is the registry's own table, kept equal to the database as well."""
        self.database = database
        self.own = own
        self._present = registry.WatchAccessResponse(revision=-1)
        self._changed = Signal()
        self._reading = asyncio.Lock()

    async def run(self) -> None:
        """Follows the database until cancelled. A change by another replica shows within half a second."""
        while True:
            seen = self.database.changed.count
            try:
                await self.refresh()
            except Fault as fault:  # a database may come and go; the keys that were read last stay
                log.warning("keys_not_read", reason=fault.reason_name)
            await self.database.changed.wait(seen, timeout_s=0.5 if self.database.postgres else 5.0)

    async def refresh(self) -> None:
        """Looks now: who got a key here may use it here at once."""
        async with self._reading, self.database.read() as session:
            revision = await store.access_revision(session)
            if revision == self._present.revision:
                return
            present = registry.WatchAccessResponse(revision=revision)
            present.projects.extend(project.name for project in await store.PROJECTS.find(session))
            for key, secret_sha256 in await store.working_keys(session):
                record = present.keys.add(
                    secret_sha256=secret_sha256, principal=key.name, role_bindings=key.role_bindings
                )
                if key.HasField("expire_time"):
                    record.expire_time.CopyFrom(key.expire_time)
            self._present = present
        self.own.swap(KeyTable.from_response(present))
        self._changed.fire()

    async def snapshots(self) -> AsyncIterator[registry.WatchAccessResponse]:
        """The keys now, and again whenever one changes."""
        revision = -1
        while True:
            seen = self._changed.count
            if self._present.revision != revision:
                revision = self._present.revision
                yield self._present
            await self._changed.wait(seen, timeout_s=60.0)


class AccessServicer(registry.AccessServiceServicer):
    """The stream that every other service follows."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys

    async def WatchAccess(
        self, request: registry.WatchAccessRequest, context: Any
    ) -> AsyncIterator[registry.WatchAccessResponse]:
        async for response in self.keys.snapshots():
            yield response
