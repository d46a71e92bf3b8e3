"""A migrated private database of the dataset service."""

from pathlib import Path

import pytest

from kit.store import Database, migrate
from services import dataset


@pytest.fixture
async def database():
    opened = await Database.open("sqlite://", service="dataset")
    await migrate(opened, Path(dataset.__file__).parent / "migrations" / "versions")
    yield opened
    await opened.close()
