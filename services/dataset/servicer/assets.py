"""The rpcs about images and the like beside the rows."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Any

from kit.blobs import BlobStore
from kit.rpc.call import current_call
from kit.rpc.errors import Invalid, StateConflict
from kit.rpc.names import parent_of, project_of
from kit.store import Database, Unit
from services.dataset import store
from services.dataset.governance import grants
from services.dataset.media import assets
from services.dataset.media.rendering import Renderer
from services.dataset.uploads import domain as uploads
from services.dataset.uploads.judging import StoredParts
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors

Context = Any
PIECE_BYTES = 1 << 20
LISTED_AT_ONCE = 32


class AssetServicer(dataset.AssetServiceServicer):
    """Images, frames of videos and sounds: named by uploads, stored once in a project, read by version."""

    def __init__(self, database: Database, blobs: BlobStore, stored: StoredParts, renderer: Renderer) -> None:
        self.database = database
        self.blobs = blobs
        self.stored = stored
        self.renderer = renderer

    async def NameAssets(self, request: dataset.NameAssetsRequest, context: Context) -> dataset.NameAssetsResponse:
        said = [assets.Said(each.path, each.digest, each.size_bytes) for each in request.assets]
        parent, project, principal = (
            uploads.dataset_of(request.name),
            project_of(request.name),
            current_call().principal,
        )

        async def work(unit: Unit) -> list[str]:
            uploads.check_takes_assets(await store.UPLOADS.get(unit.session, request.name))
            missing = await assets.bring(unit, request.name, said)
            hidden = await grants.hidden(unit.session, principal, project)
            shared = await assets.share(unit, parent, missing, hidden)
            return [digest for digest in missing if digest not in shared]

        return dataset.NameAssetsResponse(missing_digests=await self.database.transact(work))

    async def WriteAssets(
        self, request_iterator: AsyncIterator[dataset.WriteAssetsRequest], context: Context
    ) -> dataset.WriteAssetsResponse:
        incoming, stored, count = _Incoming(request_iterator), list[assets.AssetRow](), 0
        try:
            while (begun := await incoming.next_asset()) is not None:
                name, digest = begun
                async with self.database.read() as session:
                    uploads.check_takes_assets(await store.UPLOADS.get(session, name))
                    said = await assets.brings(session, name, digest)
                if said is None:
                    raise Invalid(
                        f"`{digest}` was not named as an asset of `{name}`; call NameAssets first",
                        violations=[("digest", "was not named")],
                    )
                stored.append(await self.stored.keep_asset(name, digest, incoming.pieces(said.size_bytes)))
                count += 1
                if len(stored) >= LISTED_AT_ONCE:
                    await self.stored.list_assets(stored)
        finally:  # what came before a break need not come again
            await self.stored.list_assets(stored)
        return dataset.WriteAssetsResponse(asset_count=count)

    async def ReadAssets(
        self, request: dataset.ReadAssetsRequest, context: Context
    ) -> AsyncIterator[dataset.ReadAssetsResponse]:
        space = assets.space_of(project_of(request.name))
        async with self.database.read() as session:
            await store.get_version(session, request.name)
            rows = await assets.of_version(session, request.name, request.digests)
        for digest in request.digests:
            about: dataset.Asset | None = _asset(rows[digest])
            pieces = self.blobs.open(space, digest)
            if request.rendering == dataset.RENDERING_PNG:
                pieces = _cut(await self.renderer.png(parent_of(request.name), pieces, request.frame))
            async for piece in pieces:
                yield dataset.ReadAssetsResponse(asset=about, data=piece)
                about = None

    async def ListAssets(self, request: dataset.ListAssetsRequest, context: Context) -> dataset.ListAssetsResponse:
        async with self.database.read() as session:
            await store.get_version(session, request.parent)
            found, token = await assets.page_of_version(
                session, request.parent, request.page_size or 50, request.page_token
            )
        return dataset.ListAssetsResponse(assets=[_asset(row) for row in found], next_page_token=token)


class _Incoming:
    """Pieces of assets that come one after the other in one stream."""

    def __init__(self, pieces: AsyncIterator[dataset.WriteAssetsRequest]) -> None:
        self._pieces = pieces
        self._name = ""
        self._held: dataset.WriteAssetsRequest | None = None

    async def next_asset(self) -> tuple[str, str] | None:
        """Upload and digest of the next asset; None when there is none."""
        self._held = self._held or await anext(self._pieces, None)
        if self._held is None:
            return None
        self._name = self._name or self._held.name
        if not self._name or not self._held.digest or self._held.name not in ("", self._name):
            raise Invalid(
                "the first piece names the upload, and that of each asset its digest",
                violations=[("name", "is missing, or not that of the first piece")],
            )
        return self._name, self._held.digest

    async def pieces(self, size: int) -> AsyncIterator[bytes]:
        """The bytes of the asset that was begun."""
        left = size
        while (piece := self._held or await anext(self._pieces, None)) is not None:
            if piece.digest and piece is not self._held:
                self._held = piece
                break
            self._held = None
            if zlib.crc32(piece.data) != piece.crc32:
                raise Invalid(
                    "a piece of an asset does not have its checksum; send it again",
                    reason=errors.ERROR_REASON_CHECKSUM_MISMATCH,
                )
            left -= len(piece.data)
            if left < 0:
                break
            yield piece.data
        if left:
            raise StateConflict(
                f"an asset was named with {size} bytes and {'more' if left < 0 else 'fewer'} have come; name it again",
                reason=errors.ERROR_REASON_SIZE_MISMATCH,
            )


async def _cut(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), PIECE_BYTES):
        yield content[start : start + PIECE_BYTES]


def _asset(row: assets.AssetRow) -> dataset.Asset:
    return dataset.Asset(
        digest=row.digest, size_bytes=row.size_bytes, type=row.type, width=row.width, height=row.height
    )
