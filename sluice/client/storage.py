"""What lies on disk, as the suite sees it: damaged blobs, and how far the look for them is."""

from __future__ import annotations

import builtins

from sluice.client.connection import Connection, gather
from sluice.dataset import v1 as dataset


class Storage:
    """``client.storage``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._blobs = dataset.DamagedBlobServiceStub(connection.channel)

    async def damaged(self, *, everywhere: bool = False, limit: int = 0) -> builtins.list[dataset.DamagedBlob]:
        """The damaged blobs of the project, or of all, and the dataset versions that they hit; 0 means all of them."""
        request = dataset.ListDamagedBlobsRequest(parent=self._parent(everywhere))
        pages = self._connection.pages(
            self._blobs.ListDamagedBlobs, request, lambda page: page.damaged_blobs, limit=limit
        )
        return await gather(pages)

    async def scrub(self, *, everywhere: bool = False) -> dataset.Scrub:
        """How far the look through everything that is stored has come; without times before the first."""
        request = dataset.ListDamagedBlobsRequest(parent=self._parent(everywhere), page_size=1)
        answer: dataset.ListDamagedBlobsResponse = await self._connection.call(self._blobs.ListDamagedBlobs, request)
        return answer.scrub

    def _parent(self, everywhere: bool) -> str:
        return "projects/-" if everywhere else self._connection.project
