"""A channel with credentials, trace context and safe repeats; it knows no service and no stub."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from kit import telemetry
from kit.rpc import contract
from kit.rpc.server import MAX_MESSAGE_BYTES

Token = str | Callable[[], str] | None
LOOPBACK = ("localhost", "127.", "[::1]", "unix:")
RETRY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def connect(
    address: str,
    *,
    token: Token = None,
    tls: grpc.ChannelCredentials | None = None,
    retries: bool = True,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> grpc.aio.Channel:
    """A channel to `host:port`; it connects at the first call and again after a break.

    ``token`` goes along as `authorization: Bearer`; a function is asked before each call. Reads, and calls
    with a `request_id` (filled in when it is empty), get four tries while the peer is UNAVAILABLE;
    without ``retries`` (as between gateway and services, where the client repeats) just one.
    """
    interceptors = [
        kind(token) for kind in (_OutgoingUnaryUnary, _OutgoingUnaryStream, _OutgoingStreamUnary, _OutgoingStreamStream)
    ]
    options = channel_options(address, retries, max_message_bytes)
    if tls:
        return grpc.aio.secure_channel(address, tls, options, interceptors=interceptors)
    return grpc.aio.insecure_channel(address, options, interceptors=interceptors)


def channel_options(address: str, retries: bool, max_message_bytes: int) -> list[tuple[str, Any]]:
    """Limits, keepalive and the retry policy of a channel."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.http2.bdp_probe", 0),  # windows that grow let a slow reader hold 30 MiB; without, two messages
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.enable_retries", int(retries)),
        ("grpc.enable_http_proxy", 0 if address.startswith(LOOPBACK) else 1),
        ("grpc.service_config", _service_config()),
    ]


def _service_config() -> str:
    names = [{"service": service, "method": method} for service, method in contract.repeatable_methods()]
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": RETRY}]})


class _Outgoing:
    """Adds credentials and trace context to a call."""

    def __init__(self, token: Token) -> None:
        self._token = token

    def _details(self, details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        present = {key for key, _ in metadata}
        token = self._token() if callable(self._token) else self._token
        if token and "authorization" not in present:
            metadata.add("authorization", f"Bearer {token}")
        traceparent = telemetry.current_traceparent() or telemetry.untraced()
        if traceparent and "traceparent" not in present:
            metadata.add("traceparent", traceparent)
        return grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )


Continuation = Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]]


class _OutgoingUnaryUnary(_Outgoing, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Continuation, details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(self._details(details), _with_request_id(request))


class _OutgoingUnaryStream(_Outgoing, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Continuation, details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(self._details(details), request)


class _OutgoingStreamUnary(_Outgoing, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self, continuation: Continuation, details: grpc.aio.ClientCallDetails, requests: Any
    ) -> Any:
        return await continuation(self._details(details), requests)


class _OutgoingStreamStream(_Outgoing, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Continuation, details: grpc.aio.ClientCallDetails, requests: Any
    ) -> Any:
        return await continuation(self._details(details), requests)


def _with_request_id(request: Any) -> Any:
    """A copy with a new `request_id` where the request has an empty one: only then may it be repeated."""
    fields = getattr(getattr(request, "DESCRIPTOR", None), "fields_by_name", {})
    if "request_id" not in fields or request.request_id:
        return request
    copy = type(request)()
    copy.CopyFrom(request)
    copy.request_id = str(uuid.uuid4())
    return copy
