"""What the inbox forgets: nothing that can still come again."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlmodel import select

from kit.bus import Reconciler
from kit.store import BookmarkRow, Database, InboxRow, migrate
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    opened = await Database.open("sqlite://", service="registry", clock=lambda: NOW)
    await migrate(opened)
    async with opened.begin() as unit:
        for days in (10, 59, 61, 400):
            unit.session.add(InboxRow(consumer="registry", event_id=f"{days}", time=NOW - timedelta(days=days)))
    yield opened
    await opened.close()


async def ignore(*_: Any) -> None:
    """A handler."""


@pytest.mark.parametrize(
    ("settled", "kept"),
    [
        ({"trainer": 1, "registry": 2}, {"10", "59"}),
        ({"trainer": 1, "registry": 300}, {"10", "59", "61"}),  # a source that was away will be read from there
        ({"trainer": 1}, {"10", "59", "61", "400"}),  # and one that was never read from its beginning
    ],
)
async def test_only_what_can_never_come_again_is_forgotten(
    database: Database, settled: dict[str, int], kept: set[str]
) -> None:
    async with database.begin() as unit:
        for source, days in settled.items():
            value = (NOW - timedelta(days=days)).isoformat()
            unit.session.add(BookmarkRow(key=f"reconciled.{source}", value=value))
    handlers = {trainer.TrainingJobSucceeded: ignore, registry.ModelVersionCreated: ignore}
    sources: Any = {"trainer": None, "registry": None}
    reconciler = Reconciler(database, "registry", sources, handlers)
    assert await reconciler.forget() == 4 - len(kept)
    async with database.read() as session:
        assert set(await session.exec(select(InboxRow.event_id))) == kept
