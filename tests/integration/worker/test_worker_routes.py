"""The data-path worker when routes change: what was withdrawn or revoked serves nobody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from worker_parts import Ask, Gateway, ask_body, endless, name, normal, post, read_head, running, send


async def test_after_a_swap_returned_a_removed_version_serves_nobody(gateway: Gateway) -> None:
    gateway.route(50)
    answered = 0
    some, many = asyncio.Event(), asyncio.Event()

    async def load(worker: int) -> None:
        nonlocal answered
        for turn in range(60):
            more = f"x-sluice-session: {worker}-{turn}\r\n"
            assert (await post(gateway, ask_body(), more=more))[0] == 200
            answered += 1
            if answered == 150:
                some.set()
            elif answered == 400:
                many.set()

    async def swap() -> None:
        await some.wait()
        gateway.route(0)
        asked = len(gateway.two.asks)
        await many.wait()
        assert len(gateway.two.asks) <= asked + 8  # sent before the swap, not yet read by the engine

    await asyncio.gather(swap(), *(load(worker) for worker in range(8)))
    lines = await gateway.served()
    last = max(line["revision"] for line in lines)
    assert {line["version"] for line in lines if line["kind"] == "request" and line["revision"] == last} == {name(2)}
    assert any(line.get("version") == name(3) for line in lines)


@contextlib.asynccontextmanager
async def under_way(gateway: Gateway, stream: bool) -> AsyncIterator[asyncio.StreamReader]:
    """A request to the stable version under way; it would never end."""

    gateway.one.behavior = endless
    reader, writer = await send(gateway, ask_body(stream), more="connection: close\r\n")
    await gateway.one.asked.wait()
    if stream:
        await read_head(reader)
    yield reader
    writer.close()
    gateway.one.behavior = normal


async def assert_cut(gateway: Gateway, text: str) -> None:
    assert "version_withdrawn" in text
    assert "[DONE]" not in text
    await gateway.one.hung_up.wait()
    *_, line = await gateway.served()
    assert (line["error"], line["status"]) == ("withdrawn", 503)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_of_a_withdrawn_version_is_cut_in_the_end(tmp_path: Path, stream: bool) -> None:
    async with running(tmp_path, withdrawn_ends_s=0.05) as gateway:
        async with under_way(gateway, stream) as reader:
            gateway.route(0)  # still there: it may go on
            gateway.route(100, stable=False)
            text = (await reader.read()).decode()
        await assert_cut(gateway, text)
        assert (await post(gateway, ask_body()))[1]["x-sluice-version"] == name(3)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_revoked_version_is_cut_at_once_and_no_table_brings_it_back(gateway: Gateway, stream: bool) -> None:
    gateway.route(50)
    gateway.route(0)
    async with under_way(gateway, stream) as reader:
        gateway.worker.revoke(name(2))
        text = (await reader.read()).decode()
    await assert_cut(gateway, text)
    gateway.route(10)  # as a control process would say that has not heard of it
    before = len(gateway.one.asks)
    status, _, refused = await post(gateway, ask_body())
    assert status == 503, refused  # nobody is promoted by it
    assert (await post(gateway, ask_body(model="assistant@2")))[0] == 404
    assert len(gateway.one.asks) == before


async def test_the_share_of_a_revoked_candidate_is_the_stable_versions(gateway: Gateway) -> None:
    async def silent(ask: Ask, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    gateway.two.behavior = silent
    gateway.route(100)
    waiting = asyncio.create_task(post(gateway, ask_body()))
    await gateway.two.asked.wait()
    gateway.worker.revoke(name(3))
    assert (await waiting)[1]["x-sluice-version"] == name(2)  # nothing had been sent to the client
    for _ in range(5):
        assert (await post(gateway, ask_body()))[1]["x-sluice-version"] == name(2)
    record = await gateway.served()
    assert [line.get("instead_of") for line in record if line["kind"] == "request"] == [name(3), *5 * [None]]


async def test_an_older_table_is_ignored(gateway: Gateway) -> None:
    gateway.revision = -1
    gateway.route(100)
    assert gateway.worker.revision == 2
    assert (await post(gateway, ask_body()))[1]["x-sluice-version"] == name(2)
