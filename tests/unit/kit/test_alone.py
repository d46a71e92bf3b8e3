"""One process a SQLite file, and the next as soon as it is gone."""

import asyncio
import sys
from pathlib import Path

import pytest

from kit.rpc.errors import Unavailable
from kit.store import alone

HOLDS = """
import asyncio, sys
from kit.store import alone

async def main():
    async with alone(sys.argv[1]):
        print("held", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""
ROOT = Path(__file__).resolve().parents[3]


async def test_a_second_process_is_refused_until_the_first_was_killed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'db' / 'trainer.db'}"
    command = [sys.executable, "-c", HOLDS, url]
    first = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert first.stdout is not None
    assert await first.stdout.readline() == b"held\n"
    with pytest.raises(Unavailable, match=r"another process works on `.*/trainer\.db`; end it"):
        async with alone(url, within_s=0.2):
            pass
    first.kill()
    async with alone(url):
        await first.wait()


async def test_postgresql_takes_as_many_as_there_are() -> None:
    async with alone("postgresql://host/name"), alone("postgresql://host/name"):
        pass
