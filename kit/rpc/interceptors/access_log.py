"""One log line for every rpc: method, principal, code and time; never what was said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from kit import telemetry
from kit.rpc.call import caller_of
from kit.rpc.interceptors.layer import Context, Handler, Layer, code_of, is_open

log = telemetry.get_log(__name__)


class AccessLog(Layer):
    """The trace id is in the line as in every other."""

    def applies(self, method: str, handler: Handler) -> bool:
        """Health checks and reflection would drown the rest."""
        return not is_open(method)

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        """Writes the line when the rpc is over."""
        started, cancelled = time.perf_counter(), False
        try:
            yield
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            code = grpc.StatusCode.CANCELLED if cancelled else code_of(context)
            ms = round((time.perf_counter() - started) * 1000, 2)
            log.info("rpc", method=method, principal=caller_of(method), code=code.name, ms=ms)
