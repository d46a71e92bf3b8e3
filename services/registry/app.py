"""The composition root of the registry: builds what it needs and passes it on by value."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kit.auth import AccessSnapshot
from kit.rpc.server import Server
from kit.serve import Application, blob_store, process, serving, storage
from kit.settings import Settings
from services.registry import access, commands, events
from services.registry.catalog import Catalog
from services.registry.servicer import (
    ApiKeyServicer,
    GatePolicyServicer,
    ModelServicer,
    ProjectServicer,
)
from services.registry.sweeping import Sweeper
from services.registry.task_type_servicer import TaskTypeServicer
from services.registry.version_servicer import ModelVersionServicer
from sluice.registry import v1 as registry


@asynccontextmanager
async def application(settings: Settings) -> AsyncIterator[Server]:
    """The running service."""
    own = AccessSnapshot()
    async with (
        process(settings, own_access=own) as runtime,
        storage(settings, Path(__file__).parent) as database,
    ):
        catalog = Catalog.built_in()
        blobs = blob_store(settings)
        await database.transact(lambda unit: commands.first_start(unit, settings.first_key_sha256))
        keys = access.Keys(database, own)
        versions = ModelVersionServicer(database, catalog, blobs, settings.home / "run" / "imports")
        servicers = [
            (registry.add_ProjectServiceServicer_to_server, ProjectServicer(database)),
            (registry.add_ApiKeyServiceServicer_to_server, ApiKeyServicer(database, keys.refresh)),
            (registry.add_AccessServiceServicer_to_server, access.AccessServicer(keys)),
            (registry.add_TaskTypeServiceServicer_to_server, TaskTypeServicer(database, catalog)),
            (registry.add_GatePolicyServiceServicer_to_server, GatePolicyServicer(database, catalog)),
            (registry.add_ModelServiceServicer_to_server, ModelServicer(database, catalog)),
            (registry.add_ModelVersionServiceServicer_to_server, versions),
        ]
        await keys.refresh()
        loops = [keys.run, Sweeper(database, blobs).run]
        parts = Application(servicers, handlers=events.handlers(catalog), loops=loops)
        async with serving(runtime, database, parts) as server:
            yield server
