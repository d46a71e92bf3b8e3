"""A server span and two figures for every rpc, in the trace of its caller; it sees no content."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from opentelemetry.trace import SpanKind, Status, StatusCode

from kit import telemetry
from kit.rpc.interceptors.layer import Context, Handler, Layer, code_of, is_open

SERVER_FAULTS = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}


class Telemetry(Layer):
    """Span and attributes follow OpenTelemetry's semantic conventions for rpc servers."""

    def applies(self, method: str, handler: Handler) -> bool:
        """Health checks and reflection are not worth a trace."""
        return not is_open(method)

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        """Opens the span, and closes it with the code of the rpc whatever happened."""
        service, _, name = method.lstrip("/").partition("/")
        parent = next((value for key, value in context.invocation_metadata() or () if key == "traceparent"), "")
        started = time.perf_counter()
        with telemetry.with_traceparent(str(parent)):
            attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
            with telemetry.span(method.lstrip("/"), kind=SpanKind.SERVER, **attributes) as span:
                cancelled = False
                try:
                    yield
                except asyncio.CancelledError:
                    cancelled = True
                    raise
                finally:
                    code = grpc.StatusCode.CANCELLED if cancelled else code_of(context)
                    span.set_attribute("rpc.grpc.status_code", code.value[0])
                    if code in SERVER_FAULTS:
                        span.set_status(Status(StatusCode.ERROR, code.name))
                    telemetry.count("sluice_rpc_total", method=method, code=code.name)
                    telemetry.observe("sluice_rpc_seconds", time.perf_counter() - started, method=method)
