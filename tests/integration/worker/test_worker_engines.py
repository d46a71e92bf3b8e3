"""The data-path worker before engines that die, hang, lie or are not there, and clients that leave."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from worker_parts import (
    ENDPOINT,
    PROMPT,
    Ask,
    Behavior,
    Gateway,
    answer,
    ask_body,
    begin_stream,
    endless,
    event,
    name,
    post,
    read_head,
    send,
    token,
)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_stops_the_engine(gateway: Gateway, stream: bool) -> None:
    gateway.one.behavior = endless
    _, writer = await send(gateway, ask_body(stream))
    await gateway.one.asked.wait()
    writer.transport.abort()
    async with asyncio.timeout(20):
        await gateway.one.hung_up.wait()
    async with asyncio.timeout(20):
        while [line["kind"] for line in await gateway.served()][-1] != "request":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert gateway.worker.figures.in_flight(ENDPOINT, name(2)) == 0
    *_, line = await gateway.served()
    assert (line["status"], line["error"]) == (499, "client_gone")


async def dying(ask: Ask, writer: asyncio.StreamWriter) -> None:
    begin_stream(writer)
    event(writer, token("m-2", "first"))
    half = b'data: {"never":'
    writer.write(b"%x\r\n%b\r\n" % (len(half), half))
    await writer.drain()
    writer.close()


async def ending_early(ask: Ask, writer: asyncio.StreamWriter) -> None:
    begin_stream(writer)
    event(writer, token("m-2", "first"))
    writer.write(b"0\r\n\r\n")


async def confessing(ask: Ask, writer: asyncio.StreamWriter) -> None:
    begin_stream(writer)
    event(writer, token("m-2", "first"))
    await writer.drain()
    await asyncio.sleep(0.01)  # so that the worker has relayed the first event
    event(writer, '{"error": {"message": "CUDA error at 10.0.0.7"}}')
    event(writer, "[DONE]")
    writer.write(b"0\r\n\r\n")


async def stalling(ask: Ask, writer: asyncio.StreamWriter) -> None:
    begin_stream(writer)
    event(writer, token("m-2", "first"))
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("behavior", "code"),
    [
        (dying, "engine_broken"),
        (ending_early, "engine_broken"),
        (confessing, "engine_broken"),
        (stalling, "engine_timeout"),
    ],
)
async def test_a_stream_that_breaks_ends_with_an_error_and_no_done(
    quick: Gateway, behavior: Behavior, code: str
) -> None:
    quick.one.behavior = behavior
    reader, writer = await send(quick, ask_body(True), more="connection: close\r\n")
    status, _ = await read_head(reader)
    text = (await reader.read()).decode()
    writer.close()
    assert status == 200
    assert '"content":"first"' in text
    error = json.loads(text.split('data: {"error"')[1].join(('{"error"', "")).split("\n\n")[0])
    assert error["error"]["code"] == code
    assert text.endswith("\r\n0\r\n\r\n")
    assert "[DONE]" not in text
    assert "never" not in text
    assert "10.0.0.7" not in text
    assert len(quick.one.asks) == 1
    *_, line = await quick.served()
    assert line["error"] in ("broken", "timeout")


async def test_the_official_client_sees_a_broken_stream(gateway: Gateway) -> None:
    gateway.one.behavior = dying
    stream = await gateway.client().chat.completions.create(model="assistant", messages=PROMPT, stream=True)
    with pytest.raises(openai.APIError, match="before its answer was complete"):
        [chunk async for chunk in stream]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hanging_engine_times_out_and_is_ejected(quick: Gateway, stream: bool) -> None:
    async def hang(ask: Ask, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    quick.one.behavior = hang
    for _ in range(3):
        status, headers, body = await post(quick, ask_body(stream))
        assert (status, body["error"]["code"]) == (504, "engine_timeout")
        assert headers["x-sluice-version"] == name(2)
    status, headers, body = await post(quick, ask_body(stream))
    assert (status, len(quick.one.asks)) == (503, 3) and 1 <= int(headers["retry-after"]) <= 2
    assert quick.worker.figures.drain()[0].errors == {"timeout": 3, "unreachable": 1}


async def test_a_slow_body_is_not_waited_for(quick: Gateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(quick.url.rpartition(":")[2]))
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-user\r\n")
    writer.write(b"content-length: 100\r\n\r\n{")
    status, headers = await read_head(reader)
    assert (status, headers["connection"]) == (408, "close")
    writer.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unreachable_candidate_is_counted_and_stable_serves(gateway: Gateway, stream: bool) -> None:
    await gateway.two.stop()
    gateway.route(99)
    client = gateway.client()
    raw = await client.chat.completions.with_raw_response.create(model="assistant", messages=PROMPT, stream=stream)
    assert raw.headers["x-sluice-version"] == name(2)
    if stream:
        [chunk async for chunk in raw.parse()]
    *_, line = await gateway.served()
    assert (line["version"], line["instead_of"], line["status"]) == (name(2), name(3), 200)
    drained = {each.version: each for each in gateway.worker.figures.drain()}
    assert drained[name(3)].errors == {"unreachable": 1}
    assert (drained[name(2)].requests, drained[name(2)].errors) == (1, {})
    assert gateway.worker.figures.in_flight(ENDPOINT, name(3)) == 0


async def test_without_a_stable_arm_an_unreachable_engine_is_a_502(gateway: Gateway) -> None:
    await gateway.two.stop()
    gateway.route(100, stable=False)
    status, headers, body = await post(gateway, ask_body())
    assert (status, body["error"]["code"]) == (502, "engine_unreachable")
    assert headers["x-sluice-version"] == name(3)
    assert "127.0.0.1" not in json.dumps(body)


@pytest.mark.parametrize(
    ("status", "message", "seen"),
    [
        ("400 Bad Request", "max_tokens must be positive", 400),
        ("400 Bad Request", "cannot parse 'a very private question'", 400),
        ("500 Internal Server Error", "CUDA", 502),
        ("401 Unauthorized", "bad key sk-engine-secret", 502),
        ("429 Too Many Requests", "queue", 429),
    ],
)
async def test_an_engines_errors_are_told_without_secrets(
    gateway: Gateway, status: str, message: str, seen: int
) -> None:
    async def refuse(ask: Ask, writer: asyncio.StreamWriter) -> None:
        answer(writer, {"error": {"message": message}}, status, "retry-after: 9\r\n")

    gateway.one.behavior = refuse
    got, headers, body = await post(gateway, ask_body())
    text = json.dumps(body)
    assert got == seen
    assert ("max_tokens" in text) is ("max_tokens" in message)
    assert not any(secret in text for secret in ("private", "sk-engine", "127.0.0.1", "m-2"))
    assert headers.get("retry-after") == ("9" if seen == 429 else None)


@pytest.mark.parametrize("payload", ["not json", [1]])
async def test_an_answer_that_is_no_openai_object_is_a_502(gateway: Gateway, payload: object) -> None:
    async def odd(ask: Ask, writer: asyncio.StreamWriter) -> None:
        answer(writer, payload)

    gateway.one.behavior = odd
    assert (await post(gateway, ask_body()))[0] == 502


async def test_an_answer_over_the_limit_is_a_413(gateway: Gateway) -> None:
    async def huge(ask: Ask, writer: asyncio.StreamWriter) -> None:
        answer(writer, {"x": "y" * 2_000_000})

    gateway.one.behavior = huge
    assert (await post(gateway, ask_body()))[0] == 413
