"""A worker before two engines; with patience and without."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from worker_parts import QUICK, Gateway, running


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path) as started:
        yield started


@pytest.fixture
async def quick(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path, QUICK) as started:
        yield started
