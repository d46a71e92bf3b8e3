"""The composition root of the dataset service: builds what it needs and passes it on by value."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kit.rpc.server import Server
from kit.serve import Application, blob_store, process, serving, storage
from kit.settings import Settings
from services.dataset import checks
from services.dataset.servicer import DatasetServicer, DatasetVersionServicer, UploadServicer
from services.dataset.supervisor import UploadSupervisor
from sluice.dataset import v1 as dataset


@asynccontextmanager
async def application(settings: Settings) -> AsyncIterator[Server]:
    """The running service."""
    async with process(settings) as runtime, storage(settings, Path(__file__).parent) as database:
        blobs = blob_store(settings)
        spare = checks.Spare()
        supervisor = UploadSupervisor(database, blobs, spare)
        servicers = [
            (dataset.add_DatasetServiceServicer_to_server, DatasetServicer(database)),
            (dataset.add_UploadServiceServicer_to_server, UploadServicer(database, blobs, spare)),
            (dataset.add_DatasetVersionServiceServicer_to_server, DatasetVersionServicer(database, blobs)),
        ]
        async with serving(runtime, database, Application(servicers, loops=[supervisor.run])) as server:
            yield server
