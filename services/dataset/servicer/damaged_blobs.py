"""The rpc about damaged blobs."""

from __future__ import annotations

from typing import Any

from kit.rpc.call import current_call
from kit.rpc.names import parent_of
from kit.store import Database
from services.dataset import damage
from services.dataset.governance import grants
from sluice.dataset import v1 as dataset

Context = Any


class DamagedBlobServicer(dataset.DamagedBlobServiceServicer):
    """What the look through all stored blobs has found."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def ListDamagedBlobs(
        self, request: dataset.ListDamagedBlobsRequest, context: Context
    ) -> dataset.ListDamagedBlobsResponse:
        async with self.database.read() as session:
            found, token, scrub = await damage.page(session, request.parent, request.page_size, request.page_token)
            hidden = await grants.hidden(session, current_call().principal, request.parent)
        for each in found:
            told = [version for version in each.dataset_versions if parent_of(version) not in hidden]
            each.dataset_versions[:] = told
        return dataset.ListDamagedBlobsResponse(damaged_blobs=found, next_page_token=token, scrub=scrub)
