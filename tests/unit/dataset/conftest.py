"""A migrated private database of the dataset service, and the processes that check for all tests here."""

import asyncio

import pytest

from services import dataset
from services.dataset import checks
from tests.migrated import migrated


@pytest.fixture
async def database():
    opened = await migrated(dataset)
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def spare():
    """Real checking processes; what they are forked from is loaded once."""
    made = checks.Spare()
    yield made
    asyncio.run(made.close())
