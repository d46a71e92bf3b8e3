"""The checking process: what it may see, and what becomes of a check when it goes wrong."""

import asyncio
import signal
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest

from services.dataset import checks

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
    async with aclosing(checks.check(checker, task, Held(content, then), **limits)) as found:
        return [event async for event in found]


async def test_parts_come_before_the_outcome():
    *before, outcome = await events(checks.Checker())
    rows = sum(sum(part.split_rows.values()) for part in before if isinstance(part, checks.Part))
    assert isinstance(outcome, checks.Outcome) and outcome.row_count == rows == 50_000
    assert 0 < max(event.rows for event in before if isinstance(event, checks.Progress)) <= 50_000


async def test_it_knows_no_secret_of_ours(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    checker, seen = checks.Checker(), []
    environ = Path(f"/proc/{checker.process.pid}/environ")
    await events(checker, then=lambda: seen.append(environ.read_bytes()))
    assert b"s3cret" not in seen[0] and b"PATH=" in seen[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_one_that_dies_is_told(number):
    checker = checks.Checker()
    with pytest.raises(checks.CheckFailed, match=f"code -{int(number)}") as failure:
        await events(checker, then=lambda: checker.process.send_signal(number))
    assert failure.value.ours


async def test_one_that_stands_still_is_given_up():
    checker = checks.Checker()
    with pytest.raises(checks.CheckFailed, match="stood still") as failure:
        await events(checker, then=lambda: checker.process.send_signal(signal.SIGSTOP), max_silence_s=3)
    assert not failure.value.ours and not psutil.pid_exists(checker.process.pid)


async def test_one_that_takes_too_much_memory_is_ended():
    with pytest.raises(checks.CheckFailed, match="more than 20 MiB of memory; split the file") as failure:
        await events(checks.Checker(), max_memory_bytes=20 << 20)
    assert not failure.value.ours


async def test_nothing_is_left_of_a_check_that_nobody_waits_for():
    checker = checks.Checker()
    task = checks.Task("rows.jsonl", "sft", len(ROWS))
    async with aclosing(checks.check(checker, task, Held(ROWS))) as found:
        await anext(found)
    assert checker.process.returncode is not None


async def test_a_spare_is_used_once_and_ends_by_itself():
    spare = checks.Spare(idle_s=0.2)
    spare.prepare()
    spare.prepare()
    first, second = spare.take(), spare.take()
    assert first.process.pid != second.process.pid
    await asyncio.gather(first.end(), second.end())
    spare.prepare()
    waiting = spare.waiting
    async with asyncio.timeout(5):
        while waiting.process.poll() is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert spare.waiting is None
