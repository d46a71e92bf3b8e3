"""A migrated private database of the registry, and the built-in catalog."""

from pathlib import Path

import pytest

from kit.store import Database, migrate
from services import registry
from services.registry.catalog import Catalog


@pytest.fixture
async def database():
    opened = await Database.open("sqlite://", service="registry")
    await migrate(opened, Path(registry.__file__).parent / "migrations" / "versions")
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def catalog():
    return Catalog.built_in()
