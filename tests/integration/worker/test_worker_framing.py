"""The data-path worker before requests that are framed to deceive or to wait."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from worker_parts import Gateway, ask_body, read_head

from services.gateway.worker.app import Worker
from services.gateway.worker.serve import serving
from services.gateway.worker.served import ServedLog


async def test_a_head_without_end_is_cut_off(gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    writer.write(b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 400_000)
    status, _ = await read_head(reader)
    assert status == 400
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()


@pytest.mark.parametrize(
    "head",
    [
        "content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\nhello",
        "transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
        "x: a\r\n b: c\r\ncontent-length : 5\r\n\r\nhello",
    ],
)
async def test_requests_framed_two_ways_never_reach_an_engine(gateway: Gateway, head: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    first = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-user\r\n"
    writer.write((first + head).encode())
    assert (await read_head(reader))[0] == 400
    writer.close()
    assert gateway.one.asks == []


async def test_nobody_holds_a_connection_without_a_request(tmp_path: Path) -> None:
    worker = Worker(ServedLog(tmp_path / "served.jsonl"))
    async with serving(worker, "127.0.0.1", head_s=0.5) as port:
        ends = []
        whole = b"GET /nope HTTP/1.1\r\nhost: x\r\n\r\n"
        for sent in (b"", whole[:20], whole + whole[:20]):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            ends.append(asyncio.wait_for(reader.read(), 20))
        answers = await asyncio.gather(*ends)
    assert [answer[:12] for answer in answers] == [b"", b"", b"HTTP/1.1 404"]


async def test_a_trailer_does_not_say_who_asks(gateway: Gateway) -> None:
    body = ask_body()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-nobody\r\n")
    writer.write(b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(body), body))
    writer.write(b"authorization: Bearer sk-user\r\n\r\n")
    assert (await read_head(reader))[0] == 401
    writer.close()
