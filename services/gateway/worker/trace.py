"""Request ids, W3C trace context (https://www.w3.org/TR/trace-context/) and the span of a sampled request; sees no
content.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from random import getrandbits, random
from typing import NamedTuple

from opentelemetry.trace import Span, Status, StatusCode

from kit.telemetry import begin_span
from services.gateway.worker.errors import GatewayError
from services.gateway.worker.served import Served

_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_NO_SPAN = nullcontext()


class Trace(NamedTuple):
    """One hop: the caller's trace id (or a new one), this hop's span id, the flags (two hex digits; bit 0: sampled),
    and the span where it is kept.
    """

    trace_id: str
    span_id: str
    flags: str
    header: bytes
    span: Span | None


def continue_trace(traceparent: bytes | None, path: str, ratio: float) -> Trace:
    """A new span in the caller's trace, kept where the caller keeps it; a malformed or absent header starts a new
    trace, and ``ratio`` of those are kept.
    """
    span_id = f"{getrandbits(64) or 1:016x}"
    trace_id, flags, parent = f"{getrandbits(128) or 1:032x}", "00", ""
    if traceparent is not None and (match := _TRACEPARENT.fullmatch(traceparent)):
        trace_id, flags, parent = match[1].decode(), match[2].decode(), traceparent.decode("latin-1")
    span = None
    if int(flags, 16) & 1 if parent else random() < ratio:
        span = begin_span(f"POST {path}", parent)
    if span is not None:
        context = span.get_span_context()
        trace_id, span_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"
        flags = f"{context.trace_flags:02x}"
    return Trace(trace_id, span_id, flags, f"00-{trace_id}-{span_id}-{flags}".encode(), span)


def keeping(trace: Trace) -> AbstractContextManager[None]:
    """A block after which the span of a request is over, if it has one; an error that leaves the block marks it."""
    return _ending(trace.span) if trace.span is not None else _NO_SPAN


@contextmanager
def _ending(span: Span) -> Iterator[None]:
    try:
        yield
    except GatewayError as error:
        _mark(span, error.status, error.kind)
        raise
    except BaseException as error:
        _mark(span, 500, type(error).__name__)
        raise
    finally:
        span.end()


def describe(span: Span, served: Served) -> None:
    """Says of a request what its record says: who served it, how it ended and how long it took."""
    span.set_attributes(
        {"endpoint": served.endpoint, "model_version": served.version, "duration_ms": served.duration_ms}
    )
    if served.ttft_ms is not None:
        span.set_attribute("ttft_ms", served.ttft_ms)
    _mark(span, served.status, served.error)


def _mark(span: Span, status: int, error: str | None) -> None:
    span.set_attribute("http.response.status_code", status)
    if error is not None:
        span.set_attribute("error.type", error)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR, error))


def request_id(offered: bytes | None) -> bytes:
    """The caller's `x-request-id` when it is harmless (128 characters of [A-Za-z0-9._:-]), else a new one."""
    if offered is not None and _REQUEST_ID.fullmatch(offered):
        return offered
    return b"req-%032x" % getrandbits(128)
