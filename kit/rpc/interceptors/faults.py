"""What a servicer raises as a status: the one edge, where drivers and bugs lose their words."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import grpc

from kit import telemetry
from kit.rpc.errors import Fault, Internal, from_driver_error, from_rpc_error
from kit.rpc.interceptors.layer import Context, Layer, abort

log = telemetry.get_log(__name__)


class Faults(Layer):
    """A Fault goes out as it is; anything else as INTERNAL with a trace id, its cause in the log only."""

    def around(self, method: str, context: Context) -> AbstractAsyncContextManager[None]:
        """Ends the rpc with the status of whatever was raised."""
        return refusing(method, context)


@asynccontextmanager
async def refusing(method: str, context: Context) -> AsyncIterator[None]:
    """Ends the rpc with the status of what the block raises; one cancelled or ended already stays so."""
    try:
        yield
    except (asyncio.CancelledError, grpc.aio.AbortError):
        raise
    except grpc.aio.InternalError as gone:  # a message could not be sent: nobody is there to read it
        raise asyncio.CancelledError from gone
    except Exception as error:
        await abort(context, fault_of(error, method))


def fault_of(error: Exception, method: str) -> Fault:
    """The fault that the caller may see for any exception; logs the cause of those that are not faults."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, grpc.RpcError):
        log.warning("a peer refused", method=method, code=error.code().name)
        return from_rpc_error(error)
    trace_id = telemetry.current_trace_id() or secrets.token_hex(16)
    log.error("rpc failed", method=method, error_id=trace_id, exc_info=error)
    return from_driver_error(error) or Internal(
        f"the service failed in a way it did not foresee; its log has the cause under trace id {trace_id}",
        metadata={"trace_id": trace_id},
    )
