"""The worker's parts without a socket: bodies, event streams, traces, figures and the served record."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.worker.body import parse_request, refusal, rewrite_answer
from services.gateway.worker.errors import Broken, InvalidRequest
from services.gateway.worker.figures import Figures, Histogram
from services.gateway.worker.served import Served, ServedLog, TableSwapped, prune
from services.gateway.worker.settings import WorkerSettings
from services.gateway.worker.sse import EventRelay
from services.gateway.worker.trace import continue_trace, request_id

unhurried = settings(deadline=None)  # the machine is shared
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@unhurried
@given(st.dictionaries(st.text(), json_values, max_size=6), st.text(), st.booleans())
def test_only_the_model_is_rewritten(others: dict[str, object], model: str, ascii_only: bool) -> None:
    others.pop("user", None)
    body = {**others, "model": model, "stream": True}
    request = parse_request(json.dumps(body, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))
    assert (request.model, request.stream, request.user) == (model, True, None)
    assert json.loads(request.for_engine("engine-7")) == {**body, "model": "engine-7"}


def test_a_member_sent_twice_reaches_the_engine_as_it_was_judged() -> None:
    request = parse_request(b'{"model":"a","model":"b"}')
    assert request.model == "b"
    assert request.for_engine("e") == b'{"model":"e"}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"{}",
        b'{"model":3}',
        b'{"model":"a"} trailing',
        b'{"model":"a","x":NaN}',
        b'{"model":"a","x":"\xff"}',
        b'{"model":"a","stream":"yes"}',
        b'{"model":"a","user":[]}',
        b'{"model":"a","x":' + b"[" * 100_000,
    ],
)
def test_a_bad_body_is_one_clear_sentence(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(body)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 200


def test_an_answer_gets_the_clients_name() -> None:
    body, usage = rewrite_answer(b'{"id":1.50,"model":"m-3","usage":{"prompt_tokens":3,"completion_tokens":5}}', "bot")
    assert body == b'{"id":1.50,"model":"bot","usage":{"prompt_tokens":3,"completion_tokens":5}}'
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 5)
    for bad in (b"", b"[]", b"<html>"):
        with pytest.raises(Broken):
            rewrite_answer(bad, "bot")


SECRETS = ("http://10.0.0.7:8000", "10.0.0.7:8000", "sk-engine", "m-3")


@pytest.mark.parametrize(
    ("status", "sentence", "shown"),
    [
        (400, "max_tokens must be at least 1", (400, "max_tokens must be at least 1")),
        (422, "temperature is too high", (400, "temperature is too high")),
        (400, "bad prompt: my secret diagnosis", (400, None)),
        (400, "input was 肺炎三期", (400, None)),
        (400, "the model m-3 has no template", (400, None)),
        (400, "no such path at 10.0.0.7:8000", (400, None)),
        (401, "wrong key sk-engine", (502, None)),
        (404, "The model m-3 does not exist", (502, None)),
        (500, "stack trace", (502, None)),
        (429, "queue", (429, None)),
        (503, "loading", (503, None)),
        (504, "late", (504, None)),
    ],
)
def test_an_engines_error_tells_no_secret(status: int, sentence: str, shown: tuple[int, str | None]) -> None:
    prompt = [
        {"role": "user", "content": "it is my secret diagnosis"},
        {"role": "user", "content": "肺炎三期"},
    ]
    request = parse_request(json.dumps({"model": "bot", "messages": prompt}).encode())
    error = refusal(status, b"7", json.dumps({"error": {"message": sentence}}).encode(), request, SECRETS)
    assert error.status == shown[0]
    if shown[1] is None:
        assert sentence not in error.message
    else:
        assert error.message == shown[1]
    assert error.retry_after_s == (7 if status in (429, 503) else None)


EVENTS = (
    b'data: {"id":"1","model":"m-3","choices":[{"delta":{"content":"say \\"model\\":\\"m-3\\""}}]}\n\n'
    b": ping\n\n"
    b'data: {"id":"1","model":"m-3","choices":[],"usage":{"prompt_tokens":4,"completion_tokens":9}}\n\n'
    b"data: [DONE]\n\n"
)
WANTED = EVENTS.replace(b'"model":"m-3",', b'"model":"bot",')


@unhurried
@given(st.lists(st.integers(0, len(EVENTS)), max_size=12), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_events_come_out_whole_however_they_arrive(cuts: list[int], newline: str, spaced: bool) -> None:
    def spell(text: bytes) -> bytes:
        if spaced:
            text = text.replace(b'"model":"', b'"model": "')
        return text.replace(b"\n", newline.encode())

    sent = spell(EVENTS)
    edges = [0, *sorted(cuts), len(sent)]
    relay = EventRelay("m-3", "bot")
    pieces = [relay.feed(sent[a:b]) for a, b in pairwise(edges) if a != b]
    assert b"".join(pieces) == spell(WANTED)
    assert all(piece.endswith(newline.encode() * 2) for piece in pieces if piece)
    assert relay.done
    usage = relay.usage()
    assert usage is not None
    assert usage.completion_tokens == 9


def test_a_stream_is_done_only_after_its_last_event() -> None:
    relay = EventRelay("m-3", "bot")
    relay.feed(EVENTS[:-16])
    assert not relay.done
    relay.feed(b"data: [DONE]")
    assert not relay.done
    with pytest.raises(Broken):
        EventRelay("m-3", "bot").feed(b'data: {"error": {"message": "CUDA at 10.0.0.7"}}\n\n')
    assert EventRelay("m", "b").feed(b'data: {"x":"an \\"error\\": {"}\n\n')


@pytest.mark.parametrize(
    ("offered", "kept"),
    [
        (b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", True),
        (b"00-" + b"0" * 32 + b"-" + b"b" * 16 + b"-01", False),
        (b"ff-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", False),
        (b"00-" + b"A" * 32 + b"-" + b"b" * 16 + b"-01", False),
        (b"junk", False),
        (None, False),
    ],
)
def test_traces_continue(offered: bytes | None, kept: bool) -> None:
    trace = continue_trace(offered, "/v1/completions", 1.0)
    assert (trace.trace_id == "a" * 32) is kept
    assert trace.flags == ("01" if kept else "00")
    assert trace.span_id != "b" * 16 and trace.span is None  # no telemetry runs
    assert continue_trace(trace.header, "/v1/completions", 0.0).trace_id == trace.trace_id


@pytest.mark.parametrize("ratio", ["-0.1", "1.1", "nan", "much"])
def test_a_trace_ratio_is_a_share(ratio: str) -> None:
    with pytest.raises(ValueError, match=r"SLUICE_HTTP_TRACE_RATIO is `.*`; it takes a number from 0 to 1"):
        WorkerSettings.from_env({"SLUICE_HTTP_TRACE_RATIO": ratio})
    assert WorkerSettings.from_env({"SLUICE_HTTP_TRACE_RATIO": "0"}).trace_ratio == 0.0


def test_a_request_id_is_kept_only_when_harmless() -> None:
    assert request_id(b"job-7.a") == b"job-7.a"
    assert request_id(b'x"} evil').startswith(b"req-")
    assert request_id(None) != request_id(None)


@unhurried
@given(st.lists(st.tuples(st.sampled_from(["2", "3"]), st.floats(0.1, 1e6), st.booleans(), st.booleans())))
def test_drained_deltas_add_up_to_the_totals(events: list[tuple[str, float, bool, bool]]) -> None:
    figures, drained = Figures(), {"2": 0, "3": 0}
    for version, ms, fails, drain in events:
        figures.began("p/e", version)
        figures.count("p/e", version, error="timeout" if fails else None, total_ms=ms, ttft_ms=ms)
        for series in figures.drain() if drain else ():
            drained[series.version] += series.requests
    for series in figures.drain():
        drained[series.version] += series.requests
    assert {each.version: each.requests for each in figures.totals()} == {v: n for v, n in drained.items() if n}
    assert sum(each.errors["timeout"] + sum(each.total.counts) for each in figures.totals()) == len(events)
    assert figures.in_flight("p/e", "2") == 0


def test_quantiles_are_bucket_bounds() -> None:
    histogram = Histogram()
    assert histogram.quantile(0.95) is None
    for ms in [10.0] * 95 + [700.0] * 5:
        histogram.observe(ms)
    assert 10 <= (histogram.quantile(0.95) or 0) <= 12.5
    assert 700 <= (histogram.quantile(0.96) or 0) <= 875


def test_prometheus_shows_one_project() -> None:
    figures = Figures()
    for endpoint in ("projects/a/endpoints/x", "projects/ab/endpoints/y"):
        figures.began(endpoint, "v1")
        figures.count(endpoint, "v1", error="timeout", total_ms=5)
    text = figures.prometheus("projects/a".__eq__)
    assert 'sluice_gateway_requests_total{endpoint="projects/a/endpoints/x",version="v1"} 1' in text
    assert 'kind="timeout"} 1' in text
    assert "projects/ab/" not in text


def served(number: int) -> Served:
    return Served(1.0, f"r{number}", "t", "p/e", "v", 1, 200, 2.0)


async def test_the_record_rotates_and_loses_nothing(tmp_path: Path) -> None:
    log = ServedLog(tmp_path / "run" / "served.jsonl", rotate_bytes=400, keep=50)
    log.start()
    log.add(TableSwapped(1.0, 4))
    for number in range(40):
        log.add(served(number))
        if number % 3 == 0:
            await log.flush()
    await log.aclose()
    files = list((tmp_path / "run").iterdir())
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert len(files) > 3
    assert sum(line == {"kind": "table", "time": 1.0, "revision": 4} for line in lines) == 1
    assert {line["request_id"] for line in lines if line["kind"] == "request"} == {f"r{n}" for n in range(40)}


async def test_a_refusing_disk_keeps_the_newest_lines(tmp_path: Path) -> None:
    folder = tmp_path / "served.jsonl"
    folder.mkdir()  # a folder where the file should be: every write fails
    log = ServedLog(folder, max_waiting=5)
    for number in range(8):
        log.add(served(number))
    await log.flush()
    assert log.dropped == 3
    folder.rmdir()
    await log.aclose()
    assert [json.loads(line)["request_id"] for line in folder.read_text().splitlines()] == [
        "r3",
        "r4",
        "r5",
        "r6",
        "r7",
    ]


def test_records_of_workers_that_are_gone_are_pruned(tmp_path: Path) -> None:
    def record(name: str, age_s: float) -> None:
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (1e9 - age_s, 1e9 - age_s))

    gone, alive = 2**22 + 1, os.getpid()  # above the largest process id that Linux gives
    record(f"{gone}-a.jsonl", 10)
    record(f"{gone}-a.jsonl.1", 20)
    record(f"{gone}-b.jsonl", 40)
    record(f"{gone}-c.jsonl", 9000)
    record(f"{alive}-d.jsonl.2", 9000)
    prune(tmp_path, 1e9, max_age_s=5000, max_bytes=250)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{gone}-a.jsonl", f"{gone}-a.jsonl.1", f"{alive}-d.jsonl.2"
    }  # fmt: skip
