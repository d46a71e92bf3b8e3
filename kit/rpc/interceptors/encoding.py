"""Lets servicers answer with what is in its wire form already; it knows no message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from kit.rpc.encoded import Encoded
from kit.rpc.interceptors.layer import Handler


class Encoding(grpc.aio.ServerInterceptor):
    """Lets servicers answer with what is encoded already."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Gives the handler a serializer that passes wire forms on."""
        handler = await continuation(details)
        if handler is None or handler.response_serializer is None or not handler.response_streaming:
            return handler
        serialize = handler.response_serializer

        def wire(response: Any) -> bytes:
            return response.wire if isinstance(response, Encoded) else serialize(response)

        kind = "stream_stream" if handler.request_streaming else "unary_stream"
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        made: Handler = make(getattr(handler, kind), handler.request_deserializer, wire)
        return made
