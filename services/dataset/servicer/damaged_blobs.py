"""The rpc about damaged blobs."""

from __future__ import annotations

from typing import Any

from kit.rpc.call import current_call
from kit.rpc.errors import Fault
from kit.rpc.names import parent_of
from kit.store import Database
from kit.telemetry import get_log
from services.dataset import damage
from services.dataset.governance import grants
from services.dataset.scrubber import Scrubber
from sluice.dataset import v1 as dataset

log = get_log(__name__)
Context = Any


class DamagedBlobServicer(dataset.DamagedBlobServiceServicer):
    """What the look through all stored blobs has found."""

    def __init__(self, database: Database, scrubber: Scrubber) -> None:
        self.database = database
        self.scrubber = scrubber

    async def ListDamagedBlobs(
        self, request: dataset.ListDamagedBlobsRequest, context: Context
    ) -> dataset.ListDamagedBlobsResponse:
        if not request.page_token:
            await self._look_aside(request.parent)
        async with self.database.read() as session:
            found, token, scrub = await damage.page(session, request.parent, request.page_size, request.page_token)
            hidden = await grants.hidden(session, current_call().principal, request.parent)
        for each in found:
            told = [version for version in each.dataset_versions if parent_of(version) not in hidden]
            each.dataset_versions[:] = told
        return dataset.ListDamagedBlobsResponse(damaged_blobs=found, next_page_token=token, scrub=scrub)

    async def _look_aside(self, parent: str) -> None:
        """Finds what `sluice storage check`, another service or a reader set aside; if the store fails, nothing."""
        try:
            await self.scrubber.look_aside("" if parent == "projects/-" else parent)
        except (Fault, OSError) as error:
            reason = error.reason_name if isinstance(error, Fault) else error.strerror
            log.warning("look_aside_failed", reason=reason)
