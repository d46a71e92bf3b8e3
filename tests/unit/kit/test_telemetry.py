"""Traces, figures and logs of a process."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.trace import SpanKind

from kit import telemetry
from kit.rpc.call import acting, current_call, system_call
from kit.telemetry.logs import redact
from kit.telemetry.trace_files import TraceFile, read_traces

TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"
Start = Callable[[], telemetry.Telemetry]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[telemetry.Telemetry]:
    started = telemetry.configure("trainer", trace_folder=tmp_path, log_file=tmp_path / "log.jsonl", version="1")
    yield started
    started.shutdown()


def test_nothing_happens_before_configure() -> None:
    with telemetry.span("x"):
        assert telemetry.current_traceparent() == ""
    assert telemetry.untraced() == "" and telemetry.begin_span("x") is None
    telemetry.count("x")
    assert telemetry.render_metrics() == "" and telemetry.service_name() == ""


def test_a_trace_continues_without_configure() -> None:
    with telemetry.with_traceparent(TRACEPARENT):
        assert telemetry.current_traceparent() == TRACEPARENT
        with telemetry.span("x"):
            assert telemetry.current_trace_id() == "a" * 32
    assert telemetry.current_traceparent() == ""


@pytest.mark.parametrize("text", ["", "x", f"ff-{'a' * 32}-{'b' * 16}-01", f"00-{'0' * 32}-{'b' * 16}-01", "00-é"])
def test_a_malformed_traceparent_changes_nothing(text: str) -> None:
    with telemetry.with_traceparent(TRACEPARENT), telemetry.with_traceparent(text):
        assert telemetry.current_traceparent() == TRACEPARENT


def test_spans_lie_in_the_file_with_their_parents(running: telemetry.Telemetry, tmp_path: Path) -> None:
    with telemetry.with_traceparent(TRACEPARENT):
        with pytest.raises(KeyError), telemetry.span("outer", job="j"):
            with telemetry.span("inner"):
                pass
            raise KeyError("row content")
    running.flush()
    spans = {span["name"]: span for span in read_traces(tmp_path)}
    outer, inner = spans["outer"], spans["inner"]
    assert (outer["trace_id"], outer["parent_id"], outer["service"]) == ("a" * 32, "b" * 16, "trainer")
    assert (outer["status"], outer["attributes"]) == ("ERROR", {"job": "j"})
    assert inner["parent_id"] == outer["span_id"]
    assert outer["start_unix_ns"] <= inner["start_unix_ns"] <= inner["end_unix_ns"] <= outer["end_unix_ns"]
    assert "row content" not in (tmp_path / "trainer.jsonl").read_text()


def test_only_what_somebody_asks_for_begins_a_trace(running: telemetry.Telemetry, tmp_path: Path) -> None:
    with telemetry.span("by itself"), telemetry.span("inside"):
        assert telemetry.current_traceparent() == ""
    with telemetry.with_traceparent(telemetry.untraced()), telemetry.span("asked by a service", kind=SpanKind.SERVER):
        assert telemetry.current_traceparent().endswith("-00")
    with telemetry.span("asked", kind=SpanKind.SERVER), telemetry.span("child"):
        assert telemetry.current_traceparent(sampled=False)[:-2] == telemetry.current_traceparent()[:-2]
        assert telemetry.current_traceparent(sampled=False).endswith("-00")
    running.flush()
    assert {span["name"] for span in read_traces(tmp_path)} == {"asked", "child"}


def test_a_span_that_is_begun_is_not_the_present_one(running: telemetry.Telemetry, tmp_path: Path) -> None:
    with telemetry.span("outside", kind=SpanKind.SERVER):
        first, second = telemetry.begin_span("first"), telemetry.begin_span("second", TRACEPARENT)
        assert first is not None and second is not None
        outside = telemetry.current_trace_id()
    first.end()
    second.end()
    running.flush()
    spans = {span["name"]: span for span in read_traces(tmp_path)}
    assert (spans["second"]["trace_id"], spans["second"]["parent_id"]) == ("a" * 32, "b" * 16)
    assert spans["first"]["parent_id"] == "" and spans["first"]["trace_id"] != outside


def test_what_an_exporter_says_is_said_once_a_minute(running: telemetry.Telemetry, tmp_path: Path) -> None:
    exporter, own = logging.getLogger("opentelemetry.exporter.x"), logging.getLogger("services.x")
    for number in range(3):
        exporter.error("failed to export, try %s", number)
        own.error("failed")
    exporter.error("something else")
    events = [json.loads(line)["event"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert events == ["failed to export, try 0", "failed", "failed", "failed", "something else"]


def test_trace_files_rotate_by_size(running: telemetry.Telemetry, tmp_path: Path) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    folder = tmp_path / "small"
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(TraceFile(folder, "t", max_bytes=1000, max_files=3)))
    for number in range(40):
        provider.get_tracer("x").start_span(f"s{number}").end()
    provider.shutdown()
    assert sorted(path.name for path in folder.iterdir()) == ["t.1.jsonl", "t.2.jsonl", "t.jsonl"]
    assert all(path.stat().st_size <= 1000 for path in folder.iterdir())
    assert [span["name"] for span in read_traces(folder)][-1] == "s39"


def test_figures_as_prometheus_text(running: telemetry.Telemetry) -> None:
    telemetry.count("jobs_total", state="ok")
    telemetry.count("jobs_total", 2, state='a"b\n')
    telemetry.set_gauge("queue_depth", 3)
    telemetry.observe("step_seconds", 0.02)
    text = telemetry.render_metrics()
    assert "# TYPE jobs_total counter" in text and 'jobs_total{state="ok"} 1\n' in text
    assert 'jobs_total{state="a\\"b\\n"} 2\n' in text
    assert "# TYPE queue_depth gauge\nqueue_depth 3\n" in text
    assert 'step_seconds_bucket{le="0.01"} 0\n' in text and 'step_seconds_bucket{le="+Inf"} 1\n' in text
    assert "step_seconds_count 1\n" in text


def test_log_lines_carry_the_trace_and_no_secret(running: telemetry.Telemetry, tmp_path: Path) -> None:
    log = telemetry.get_log("x")
    with telemetry.with_traceparent(TRACEPARENT):
        log.info("claimed", job="j", key="sk-sluice-abc_DEF-123", header="Bearer abcdefgh.ijkl")
    log.debug("not shown")
    log.error("broke", exc_info=ValueError("password sk-sluice-zzz"))
    first, second = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
    assert (first["event"], first["level"], first["service"], first["job"]) == (
        "claimed",
        "info",
        "trainer",
        "j",
    )
    assert first["trace_id"] == "a" * 32
    assert (first["key"], first["header"]) == ("sk-sluice-[redacted]", "Bearer [redacted]")
    assert "ValueError" in second["exception"] and "zzz" not in second["exception"]


def test_redaction_leaves_the_rest_alone() -> None:
    assert redact("bearer of news, sk-slu") == "bearer of news, sk-slu"
    assert redact("nats://me:pw@host:4222") == "nats://me:[redacted]@host:4222"
    assert redact("eyJhbGciOiJ.eyJzdWIi.c2ln") == "[redacted]"


def test_wrong_use_is_told(running: telemetry.Telemetry) -> None:
    with pytest.raises(RuntimeError, match="already runs for `trainer`"):
        telemetry.configure("other")


def test_an_unknown_level_is_named() -> None:
    with pytest.raises(ValueError, match=r"`LOUD`.*DEBUG"):
        telemetry.configure("x", log_level="LOUD")
    assert telemetry.service_name() == ""


def test_outside_an_rpc_the_service_acts_by_itself(running: telemetry.Telemetry) -> None:
    assert current_call().principal.name == "services/trainer"
    with acting(system_call("evaluator")):
        assert current_call().principal.service == "evaluator"
    assert current_call().principal.service == "trainer"
