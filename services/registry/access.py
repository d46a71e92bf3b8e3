"""The keys that work, as the other services need them: read from the database, pushed at every change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from kit.auth import AccessSnapshot, KeyTable
from kit.store import Database
from services.registry import store
from sluice.registry import v1 as registry


async def snapshot(database: Database) -> registry.WatchAccessResponse:
    """Every key that works now."""
    async with database.read() as session:
        response = registry.WatchAccessResponse(revision=await store.keys_revision(session))
        for key, secret_sha256 in await store.working_keys(session):
            record = response.keys.add(secret_sha256=secret_sha256, principal=key.name, role_bindings=key.role_bindings)
            if key.HasField("expire_time"):
                record.expire_time.CopyFrom(key.expire_time)
    return response


async def snapshots(database: Database) -> AsyncIterator[registry.WatchAccessResponse]:
    """The keys now, and again whenever one changes. A change by another replica shows within half a second."""
    revision = -1
    while True:
        seen = database.changed.count
        response = await snapshot(database)
        if response.revision != revision:
            revision = response.revision
            yield response
        await database.changed.wait(seen, timeout_s=0.5 if database.postgres else 5.0)


async def refresh(database: Database, access: AccessSnapshot) -> None:
    """Makes the registry's own table equal to its database now: who got a key here may use it here at once."""
    access.swap(KeyTable.from_response(await snapshot(database)))


async def keep_own(database: Database, access: AccessSnapshot) -> None:
    """Keeps the registry's own table equal to its database."""
    async for response in snapshots(database):
        access.swap(KeyTable.from_response(response))


class AccessServicer(registry.AccessServiceServicer):
    """The stream that every other service follows."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def WatchAccess(
        self, request: registry.WatchAccessRequest, context: Any
    ) -> AsyncIterator[registry.WatchAccessResponse]:
        async for response in snapshots(self.database):
            yield response
