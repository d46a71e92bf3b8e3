"""A migrated private database of the registry, and the built-in catalog."""

import pytest

from services import registry
from services.registry.catalog import Catalog
from tests.migrated import migrated


@pytest.fixture
async def database():
    opened = await migrated(registry)
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def catalog():
    return Catalog.built_in()
