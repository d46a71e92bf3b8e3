"""The composition root of the dataset service: builds what it needs and passes it on by value."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kit.rpc.server import Server
from kit.serve import Application, blob_store, process, serving, storage
from services.dataset import checks, events
from services.dataset.erasure.erasing import PredicateStore
from services.dataset.feeds import events as feed_events
from services.dataset.feeds.supervisor import FeedSupervisor
from services.dataset.governance import overhearing
from services.dataset.governance.audit import Audit
from services.dataset.governance.guard import Guard, guarded, principals
from services.dataset.labels import Labels
from services.dataset.media.rendering import Renderer
from services.dataset.scrubber import Scrubber
from services.dataset.servicer import (
    AssetServicer,
    AuditEntryServicer,
    DamagedBlobServicer,
    DatasetProfileServicer,
    DatasetServicer,
    DatasetVersionServicer,
    ErasureServicer,
    FeedServicer,
    GrantServicer,
    ModelUseServicer,
    UploadServicer,
)
from services.dataset.settings import DatasetSettings
from services.dataset.supervisor import UploadSupervisor
from services.dataset.uploads.staged import Recent
from sluice.dataset import v1 as dataset
from sluice.registry import v1 as registry


@asynccontextmanager
async def application(settings: DatasetSettings) -> AsyncIterator[Server]:
    """The running service."""
    async with process(settings) as runtime, storage(settings, Path(__file__).parent) as database:
        blobs = blob_store(settings)
        spare, recent = checks.Spare(), Recent()
        supervisor = UploadSupervisor(database, blobs, spare, recent, doomed_s=settings.doomed_s)
        scrubber = Scrubber(database, blobs, bytes_per_s=settings.scrub_bytes_per_s, every_s=settings.scrub_every_s)
        record = Audit(database)
        guard = Guard(database, record, principals(runtime.access, settings.enable_auth))
        renderer = Renderer(spare)
        labels = Labels(registry.TaskTypeServiceStub(runtime.channel("registry")))
        servicers = [
            (
                dataset.add_AssetServiceServicer_to_server,
                AssetServicer(database, blobs, supervisor.stored, renderer),
            ),
            (dataset.add_AuditEntryServiceServicer_to_server, AuditEntryServicer(database)),
            (dataset.add_DamagedBlobServiceServicer_to_server, DamagedBlobServicer(database, scrubber)),
            (dataset.add_DatasetProfileServiceServicer_to_server, DatasetProfileServicer(supervisor.analyst)),
            (dataset.add_DatasetServiceServicer_to_server, DatasetServicer(database, labels)),
            (dataset.add_ErasureServiceServicer_to_server, ErasureServicer(database, PredicateStore(database, blobs))),
            (dataset.add_FeedServiceServicer_to_server, FeedServicer(database, blobs, labels)),
            (dataset.add_GrantServiceServicer_to_server, GrantServicer(database)),
            (dataset.add_ModelUseServiceServicer_to_server, ModelUseServicer(database)),
            (
                dataset.add_UploadServiceServicer_to_server,
                UploadServicer(database, blobs, spare, recent, scrubber.is_damaged, labels),
            ),
            (dataset.add_DatasetVersionServiceServicer_to_server, DatasetVersionServicer(database, blobs)),
        ]
        loops = [supervisor.run, FeedSupervisor(database, blobs).run]
        loops += [scrubber.run] if settings.scrub_bytes_per_s else []
        inlets = feed_events.inlets(blobs)
        does = Application(
            guarded(servicers, guard),
            handlers=events.HANDLERS,
            inlets=inlets,
            loops=loops,
            sift=overhearing.sift,
            refused=guard.refuse,
        )
        try:
            async with serving(runtime, database, does) as server:
                yield server
        finally:
            await renderer.close()
            await record.drain()
