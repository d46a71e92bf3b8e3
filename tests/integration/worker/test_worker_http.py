"""The data-path worker to its clients: official ones, sessions, traces, refusals, figures."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from worker_parts import (
    ENDPOINT,
    KEYS,
    PROJECT,
    PROMPT,
    Ask,
    Gateway,
    Spans,
    answer,
    ask_body,
    name,
    normal,
    post,
    read_head,
    running,
)

from kit import telemetry
from kit.telemetry.trace_files import read_traces
from services.gateway.worker.app import Worker
from services.gateway.worker.serve import serving
from services.gateway.worker.served import ServedLog
from services.gateway.worker.snapshot import (
    RouteTable,
)


async def test_the_official_client_chats(gateway: Gateway) -> None:
    client = gateway.client()
    assert [model.id async for model in client.models.list()] == ["assistant"]
    assert (await client.models.retrieve("assistant")).id == "assistant"
    raw = await client.chat.completions.with_raw_response.create(model="assistant", messages=PROMPT)
    chat = raw.parse()
    assert (chat.model, chat.choices[0].message.content) == ("assistant", "by m-2")
    assert chat.usage is not None
    assert raw.headers["x-sluice-version"] == name(2)
    assert raw.headers["x-sluice-endpoint"] == ENDPOINT
    assert raw.headers["x-request-id"].startswith("req-")
    text = await client.completions.create(model="assistant", prompt="hello")
    assert text.choices[0].text == "by m-2"
    (ask, other) = gateway.one.asks
    assert (ask.path, other.path) == ("/v1/chat/completions", "/v1/completions")
    assert ask.body == {"model": "m-2", "messages": PROMPT}
    assert ask.headers["authorization"] == "Bearer sk-engine-secret"


async def test_the_official_client_streams(gateway: Gateway) -> None:
    stream = await gateway.client().chat.completions.create(model="assistant", messages=PROMPT, stream=True)
    chunks = [chunk async for chunk in stream]
    assert {chunk.model for chunk in chunks} == {"assistant"}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "by m-2"
    assert stream.response.headers["x-sluice-version"] == name(2)
    *_, line = await gateway.served()
    assert line["ttft_ms"] > 0


async def test_connections_to_an_engine_are_kept_and_a_dead_one_is_replaced(gateway: Gateway) -> None:
    for _ in range(5):
        assert (await post(gateway, ask_body()))[0] == 200
    assert gateway.one.connections == 1

    async def once(ask: Ask, writer: asyncio.StreamWriter) -> None:
        gateway.one.behavior = normal
        writer.transport.abort()

    gateway.one.behavior = once
    assert (await post(gateway, ask_body()))[0] == 200
    assert (gateway.one.connections, len(gateway.one.asks)) == (2, 7)


async def test_a_trace_is_continued_and_ids_are_kept(gateway: Gateway) -> None:
    more = f"traceparent: 00-{'a' * 32}-{'b' * 16}-01\r\nx-request-id: job-7\r\n"
    _, headers, _ = await post(gateway, ask_body(), more=more)
    assert headers["traceresponse"].startswith(f"00-{'a' * 32}-")
    assert headers["x-request-id"] == "job-7"
    assert gateway.one.asks[0].headers["traceparent"] == headers["traceresponse"]
    *_, line = await gateway.served()
    assert (line["trace_id"], line["request_id"]) == ("a" * 32, "job-7")


@pytest.fixture
def spans(tmp_path: Path) -> Iterator[Spans]:
    """The spans of the worker so far."""
    running = telemetry.configure("gateway-worker", trace_folder=tmp_path / "traces", log_file=tmp_path / "log.jsonl")

    def kept() -> list[dict[str, Any]]:
        running.flush()
        return list(read_traces(tmp_path / "traces"))

    yield kept
    running.shutdown()


async def test_a_request_of_a_kept_trace_is_one_span_without_content(gateway: Gateway, spans: Spans) -> None:
    more = f"traceparent: 00-{'a' * 32}-{'b' * 16}-0%d\r\n"
    _, headers, _ = await post(gateway, ask_body(), more=more % 1)
    await post(gateway, ask_body(), more=more % 0)
    await post(gateway, ask_body())  # nobody asked for a trace, and no share is kept
    (span,) = spans()
    assert (span["trace_id"], span["parent_id"]) == ("a" * 32, "b" * 16)
    assert headers["traceresponse"] == f"00-{'a' * 32}-{span['span_id']}-01"
    assert (span["name"], span["status"]) == ("POST /v1/chat/completions", "UNSET")
    attributes = span["attributes"]
    took_ms = attributes.pop("duration_ms")
    assert attributes == {"endpoint": ENDPOINT, "model_version": name(2), "http.response.status_code": 200}
    assert 0 < took_ms <= (span["end_unix_ns"] - span["start_unix_ns"]) / 1e6


async def test_a_share_of_the_other_requests_begins_a_trace(tmp_path: Path, spans: Spans) -> None:
    async with running(tmp_path, trace_ratio=1.0) as gateway:
        stream = await gateway.client().chat.completions.create(model="assistant", messages=PROMPT, stream=True)
        assert [chunk async for chunk in stream]
        _, trace_id, span_id, flags = stream.response.headers["traceresponse"].split("-")
        assert gateway.one.asks[0].headers["traceparent"].split("-")[1] == trace_id
    (span,) = spans()
    assert (span["trace_id"], span["span_id"], span["parent_id"]) == (trace_id, span_id, "") and int(flags, 16) & 1
    assert 0 < span["attributes"]["ttft_ms"] <= span["attributes"]["duration_ms"]
    assert "private" not in (tmp_path / "traces" / "gateway-worker.jsonl").read_text()


async def test_spans_say_how_a_request_failed(tmp_path: Path, spans: Spans) -> None:
    async def refuses(ask: Ask, writer: asyncio.StreamWriter) -> None:
        answer(writer, {"error": {"message": "too long"}}, "400 Bad Request")

    async with running(tmp_path, trace_ratio=1.0) as gateway:
        status, headers, _ = await post(gateway, ask_body(), key="sk-nobody")
        assert status == 401 and int(headers["traceresponse"][-2:], 16) & 1
        gateway.one.behavior = refuses
        assert (await post(gateway, ask_body()))[0] == 400
        await gateway.one.stop()
        assert (await post(gateway, ask_body()))[0] == 502
    found = [
        (each["attributes"]["http.response.status_code"], each["attributes"]["error.type"], each["status"])
        for each in spans()
    ]
    assert found == [(401, "unauthenticated", "UNSET"), (400, "refused", "UNSET"), (502, "unreachable", "ERROR")]


async def test_sessions_stick_and_the_record_says_who_served(gateway: Gateway) -> None:
    gateway.route(30)
    answers: dict[str, set[str]] = {}
    for turn in range(120):
        session = f"s{turn % 40}"
        _, headers, body = await post(gateway, ask_body(), more=f"x-sluice-session: {session}\r\n")
        answers.setdefault(session, set()).add(headers["x-sluice-version"])
        assert body["choices"][0]["message"]["content"] == f"by m-{headers['x-sluice-version'][-1]}"
    assert all(len(versions) == 1 for versions in answers.values())
    assert {next(iter(versions)) for versions in answers.values()} == {name(2), name(3)}
    lines = await gateway.served()
    assert [line["revision"] for line in lines if line["kind"] == "table"] == [2, 3]
    counted = Counter(line["version"] for line in lines if line["kind"] == "request")
    drained = {each.version: each.requests for each in gateway.worker.figures.drain()}
    assert drained == dict(counted)
    assert sum(counted.values()) == 120


@pytest.mark.parametrize(
    ("body", "key", "status", "code"),
    [
        (ask_body(), None, 401, "invalid_api_key"),
        (ask_body(), "sk-wrong", 401, "invalid_api_key"),
        (ask_body(), "a.b.c", 401, "invalid_api_key"),
        (ask_body(), "sk-auditor", 403, "permission_denied"),
        (ask_body(), "sk-other", 404, "model_not_found"),
        (ask_body(model="assistant:candidate"), "sk-user", 403, "permission_denied"),
        (ask_body(model="candidate-c"), "sk-user", 404, "model_not_found"),
        (ask_body(model="nothing"), "sk-user", 404, "model_not_found"),
        (b"{", "sk-user", 400, "invalid_request"),
        (b"{}", "sk-user", 400, "invalid_request"),
        (ask_body(user="x" * 10_000), "sk-user", 413, "request_too_large"),
    ],
)
async def test_refusals_are_openai_errors(
    gateway: Gateway, body: bytes, key: str | None, status: int, code: str
) -> None:
    got, headers, answered = await post(gateway, body, key=key)
    assert (got, answered["error"]["code"]) == (status, code)
    assert set(answered["error"]) == {"message", "type", "param", "code"}
    assert headers["x-request-id"]
    assert gateway.one.asks == gateway.two.asks == []


async def test_the_official_client_knows_the_errors(gateway: Gateway) -> None:
    with pytest.raises(openai.AuthenticationError):
        await gateway.client("sk-wrong").models.list()
    with pytest.raises(openai.NotFoundError, match="nothing"):
        await gateway.client().chat.completions.create(model="nothing", messages=PROMPT)
    with pytest.raises(openai.NotFoundError):
        await gateway.client().moderations.create(model="assistant", input="x")


async def test_the_evaluator_reaches_a_candidate_and_users_do_not(gateway: Gateway) -> None:
    evaluator = gateway.client("head.payload.sign")
    for model in ("candidate-c", "assistant:candidate"):
        chat = await evaluator.chat.completions.create(model=model, messages=PROMPT)
        assert (chat.model, chat.choices[0].message.content) == (model, "by m-3")
    assert {each.endpoint for each in gateway.worker.figures.drain()} == {
        f"{PROJECT}/candidateRoutes/c",
        f"{ENDPOINT}:candidate",
    }


async def test_health_and_metrics(tmp_path: Path) -> None:
    worker = Worker(ServedLog(tmp_path / "served.jsonl"))
    async with serving(worker, "127.0.0.1") as port:

        async def get(path: str, key: str = "", method: str = "GET") -> tuple[int, bytes]:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            auth = f"authorization: Bearer {key}\r\n" if key else ""
            writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\n{auth}\r\n".encode())
            status, headers = await read_head(reader)
            body = b"" if method == "HEAD" else await reader.readexactly(int(headers["content-length"]))
            writer.close()
            return status, body

        assert (await get("/healthz"))[0] == 503
        worker.swap_keys(KEYS)
        assert (await get("/v1/models", "sk-user"))[0] == 503
        worker.swap_routes(RouteTable(1, {}, {}))
        assert (await get("/healthz"))[0] == (await get("/healthz", method="HEAD"))[0] == 200
        assert (await get("/v1/models", "sk-user"))[0] == 200
        assert (await get("/v1/chat/completions", "sk-user"))[0] == 405
        assert (await get("/nowhere"))[0] == 404
        assert (await get("/metrics"))[0] == 401
        assert (await get("/metrics", "sk-user"))[0] == 403
        status, text = await get("/metrics", "sk-ops")
        assert status == 200
        assert b"# TYPE sluice_gateway_requests_total counter" in text
