"""A sender is held to one chunk ahead of what is stored."""

import asyncio

import pytest

from kit.rpc.errors import NotFound
from sluice.client.acknowledged import CHUNK_BYTES, Acknowledged

STEP = 1 << 20


async def test_no_byte_goes_that_is_further_ahead():
    ends, ahead, stored = [0], [], [0]

    async def told():
        while True:
            stored.append(ends[-1])
            yield stored[-1]
            await asyncio.sleep(0)

    async with Acknowledged(0, told) as acknowledged:
        for end in range(STEP, 5 * CHUNK_BYTES, STEP):
            await acknowledged.room(end)
            ends.append(end)
            ahead.append(end - stored[-1])
    assert max(ahead) == CHUNK_BYTES and len(stored) > 4


async def test_a_small_file_asks_nobody():
    def told():
        raise AssertionError("it was asked")

    async with Acknowledged(3 * STEP, told) as acknowledged:
        await acknowledged.room(3 * STEP + CHUNK_BYTES)


async def test_what_the_teller_raises_reaches_the_sender():
    async def told():
        yield 1
        raise NotFound("the upload is gone")

    async with Acknowledged(0, told) as acknowledged:
        with pytest.raises(NotFound, match="is gone"):
            await acknowledged.room(2 * CHUNK_BYTES)


async def test_a_sender_goes_on_where_no_more_is_taken_and_learns_why_from_the_refusal():
    async def told():
        yield 1

    async with Acknowledged(0, told) as acknowledged:
        await acknowledged.room(2 * CHUNK_BYTES)


async def test_nobody_is_listened_to_after_the_end():
    begun, ended = asyncio.Event(), asyncio.Event()

    async def told():
        try:
            begun.set()
            yield 0
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with Acknowledged(0, told) as acknowledged:
        waiting = asyncio.create_task(acknowledged.room(2 * CHUNK_BYTES))
        await begun.wait()
    assert ended.is_set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
