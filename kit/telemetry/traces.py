"""Spans and the W3C trace context that ties processes together; it does not know where spans go."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from random import getrandbits

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from kit.telemetry.active import active

# W3C Trace Context, level 1, section 3.2
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_nothing = trace.NoOpTracer()


def current_traceparent(*, sampled: bool = True) -> str:
    """The W3C traceparent of the present span; empty where there is none.

    Without ``sampled`` whoever gets it keeps no span: for calls of which there are too many.
    """
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        return ""
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags if sampled else 0:02x}"


def untraced() -> str:
    """A traceparent for what a service does by itself: whoever gets it begins no trace. Empty before ``configure``."""
    return f"00-{getrandbits(128) or 1:032x}-{getrandbits(64) or 1:016x}-00" if active.tracer else ""


def current_trace_id() -> str:
    """The trace id of the present span, 32 hex digits; empty where there is none."""
    found = trace.get_current_span().get_span_context()
    return f"{found.trace_id:032x}" if found.is_valid else ""


@contextmanager
def with_traceparent(traceparent: str) -> Iterator[None]:
    """Continues the trace of ``traceparent`` in the block; an empty or malformed one changes nothing."""
    parent = parse_traceparent(traceparent)
    if parent is None:
        yield
        return
    with _attached(NonRecordingSpan(parent)):
        yield


@contextmanager
def span(name: str, *, kind: SpanKind = SpanKind.INTERNAL, **attributes: AttributeValue) -> Iterator[Span]:
    """A span around the block, child of the present one; an exception marks it by its class name only.

    Only what somebody asks for begins a trace: a span of another kind than INTERNAL. Attributes are ids, counts and
    durations: never row content, prompts or secrets.
    """
    asked = kind is not SpanKind.INTERNAL or trace.get_current_span().get_span_context().is_valid
    tracer = active.tracer if active.tracer and asked else _nothing
    started = tracer.start_span(name, kind=kind, attributes=attributes)
    with _attached(started):
        try:
            yield started
        except BaseException as error:
            started.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            started.end()


def begin_span(name: str, traceparent: str = "") -> Span | None:
    """A server's span, child of ``traceparent`` or the first of a trace, that the caller ends; None before configure.

    It does not become the present span, so it costs a request no change of context.
    """
    if active.tracer is None:
        return None
    parent = parse_traceparent(traceparent)
    context = trace.set_span_in_context(NonRecordingSpan(parent) if parent else trace.INVALID_SPAN)
    return active.tracer.start_span(name, context, kind=SpanKind.SERVER)


def parse_traceparent(text: str) -> SpanContext | None:
    """The span context of a traceparent; None when it is not a valid one."""
    found = TRACEPARENT.fullmatch(text)
    if not found:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in found.groups()[:3])
    if not trace_id or not span_id:
        return None
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))


@contextmanager
def _attached(present: Span) -> Iterator[None]:
    before = otel_context.get_current()
    otel_context.attach(trace.set_span_in_context(present))
    try:
        yield
    finally:
        otel_context.attach(before)  # not detach(token): a generator may be closed in another context
