"""The table of feeds, and the pieces that their rows wait in; when they become a version is not known here."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from itertools import accumulate

from sqlalchemy import delete, insert
from sqlmodel import Field, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.store import ResourceRow, Resources, Unit, UtcTime
from services.dataset import store
from services.dataset.feeds import domain as feeds
from services.dataset.store import AT_A_TIME, PieceRow
from services.dataset.uploads import domain as uploads
from sluice.dataset import v1 as dataset


class FeedRow(ResourceRow, table=True):
    """A feed; ``due`` is when its rows become an upload by themselves."""

    __tablename__ = "dataset_feed"
    due: datetime | None = Field(default=None, index=True, sa_type=UtcTime)


FEEDS = Resources(FeedRow, dataset.Feed, lambda each: {"due": feeds.due_at(each)})


async def due(session: AsyncSession, now: datetime) -> list[str]:
    """The feeds whose rows are to become an upload, at most 100."""
    query = select(FeedRow.name).where(col(FeedRow.due) <= now).order_by(col(FeedRow.due))
    return list((await session.exec(query.limit(AT_A_TIME))).all())


async def move_pieces(unit: Unit, before: str, after: str, to: str) -> None:
    """Makes the pieces of two uploads those of a third, in that order; their blobs stay where they are."""
    pieces = [*await store.pieces(unit.session, before), *await store.pieces(unit.session, after)]
    await _replace(unit, [before, after], pieces, to)


async def drop_pieces(unit: Unit, upload: str, lost: Collection[int]) -> list[PieceRow]:
    """Forgets those pieces that start where it says, and lets the others move up; returns what was forgotten."""
    pieces = await store.pieces(unit.session, upload)
    await _replace(unit, [upload], [piece for piece in pieces if piece.start not in lost], upload)
    return [piece for piece in pieces if piece.start in lost]


async def _replace(unit: Unit, of: list[str], pieces: list[PieceRow], to: str) -> None:
    starts = accumulate((piece.size for piece in pieces), initial=0)
    moved = [
        {**piece.model_dump(), "upload": to, "start": start, "space": uploads.space_of(piece)}
        for start, piece in zip(starts, pieces, strict=False)
    ]
    await unit.session.exec(delete(PieceRow).where(col(PieceRow.upload).in_(of)))
    if moved:
        await (await unit.session.connection()).execute(insert(PieceRow), moved)
