"""The checking process: what it may see, and what becomes of a check when it goes wrong."""

import asyncio
import os
import signal
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest

from services.dataset import checks
from services.dataset.checks.forks import Nursery

ROWS = b'{"prompt": "q", "completion": "a"}\n' * 50_000


class Held:
    """A file in memory; calls `then` before it gives bytes."""

    def __init__(self, content, then=lambda: None):
        self.content, self.then = content, then

    async def read(self, start, length):
        self.then()
        return self.content[start : start + length]


async def events(checker, content=ROWS, then=lambda: None, **limits):
    task = checks.Task("rows.jsonl", "sft", len(content))
    async with aclosing(checks.run(checker, task, Held(content, then), **limits)) as found:
        return [event async for event in found]


async def test_parts_come_before_the_outcome(spare):
    *before, outcome = await events(spare.take())
    rows = sum(sum(part.split_rows.values()) for part in before if isinstance(part, checks.Part))
    assert isinstance(outcome, checks.Outcome) and outcome.row_count == rows == 50_000
    assert 0 < max(event.rows for event in before if isinstance(event, checks.Progress)) <= 50_000


async def test_one_that_stands_still_is_given_up(spare):
    checker = spare.take()
    with pytest.raises(checks.CheckFailed, match="stood still") as failure:
        await events(checker, then=lambda: os.kill(checker.process.pid, signal.SIGSTOP), max_silence_s=3)
    assert not failure.value.ours and not psutil.pid_exists(checker.process.pid)


async def test_one_that_takes_too_much_memory_is_ended(spare):
    with pytest.raises(checks.CheckFailed, match="more than 20 MiB of memory; split the file") as failure:
        await events(spare.take(), max_memory_bytes=20 << 20)
    assert not failure.value.ours


async def test_nothing_is_left_of_a_check_that_nobody_waits_for(spare):
    checker = spare.take()
    task = checks.Task("rows.jsonl", "sft", len(ROWS))
    async with aclosing(checks.run(checker, task, Held(ROWS))) as found:
        await anext(found)
    assert checker.process.poll() is not None


async def test_the_nursery_ends_by_itself():
    spare = checks.Spare(idle_s=0.2)
    first, second = spare.take(), spare.take()
    nursery = spare.prepare()
    assert len({first.process.pid, second.process.pid, nursery.pid}) == 3
    *_, outcome = await events(first)
    assert outcome.row_count == 50_000
    assert not nursery.idle and nursery.lives  # the second is still there
    await second.end()
    async with asyncio.timeout(20):
        while nursery.lives:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert spare.nursery is None and not psutil.pid_exists(nursery.pid)


async def test_it_knows_no_secret_of_ours_and_loads_no_pandas(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    spare, seen = checks.Spare(), []
    checker = spare.take()
    about = Path(f"/proc/{checker.process.pid}")

    def look():
        seen.append(((about / "environ").read_bytes(), (about / "maps").read_text()))

    await events(checker, then=look)
    await spare.close()
    assert b"s3cret" not in seen[0][0] and "libarrow" in seen[0][1] and "pandas" not in seen[0][1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_one_that_dies_is_told_and_the_next_goes_on(number, spare):
    checker = spare.take()
    with pytest.raises(checks.CheckFailed, match=f"code -{int(number)}") as failure:
        await events(checker, then=lambda: os.kill(checker.process.pid, number))
    assert failure.value.ours
    assert (await events(spare.take()))[-1].row_count == 50_000


async def test_a_nursery_that_dies_takes_its_processes_along_and_is_replaced():
    spare = checks.Spare()
    checker = spare.take()
    with pytest.raises(checks.CheckFailed):
        await events(checker, then=lambda: os.kill(spare.prepare().pid, signal.SIGKILL))
    async with asyncio.timeout(20):
        while psutil.pid_exists(checker.process.pid):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert (await events(spare.take()))[-1].row_count == 50_000
    await spare.close()


async def test_a_process_that_is_taken_when_the_nursery_is_let_go_is_another_nursery_s():
    spare = checks.Spare()
    old = spare.prepare()
    spare._look()
    checker = spare.take()
    assert spare.prepare() is not old
    assert (await events(checker))[-1].row_count == 50_000
    await spare.close()
    assert not old.lives


async def test_a_nursery_that_cannot_begin_is_no_lack_of_memory(tmp_path):
    nursery = Nursery({"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path)})
    with pytest.raises(checks.CheckFailed, match="ended with code 1") as failure:
        await events(checks.Checker(nursery.fork()))
    assert not isinstance(failure.value, checks.CheckKilled)
    nursery.close()
