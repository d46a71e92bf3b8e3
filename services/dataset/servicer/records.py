"""The rpcs that tell what was done with rows: who read and changed them, and which models saw them."""

from __future__ import annotations

from typing import Any

from kit.rpc import paging
from kit.store import Database
from services.dataset import store
from services.dataset.governance import audit, lineage
from sluice.dataset import v1 as dataset

Context = Any


class AuditEntryServicer(dataset.AuditEntryServiceServicer):
    """Reads and changes of a dataset."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def ListAuditEntries(
        self, request: dataset.ListAuditEntriesRequest, context: Context
    ) -> dataset.ListAuditEntriesResponse:
        async with self.database.read() as session:
            found, token = await audit.page(
                session, request.parent, request.page_size, request.page_token, request.reads_only
            )
        return dataset.ListAuditEntriesResponse(audit_entries=found, next_page_token=token)


class ModelUseServicer(dataset.ModelUseServiceServicer):
    """Which model versions saw a dataset."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def ListModelUses(
        self, request: dataset.ListModelUsesRequest, context: Context
    ) -> dataset.ListModelUsesResponse:
        cursor = paging.decode(request.page_token, "uses", request.parent, of=(int,))
        start, size = int(cursor[0]) if cursor else 0, paging.page_size(request.page_size)
        async with self.database.read() as session:
            of = request.parent
            if "/versions/" in of:
                of = (await store.get_version(session, of)).name
            uses = await lineage.uses_of(session, of)
        token = paging.encode([start + size], "uses", request.parent) if len(uses) > start + size else ""
        return dataset.ListModelUsesResponse(model_uses=uses[start : start + size], next_page_token=token)
