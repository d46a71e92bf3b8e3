"""Passes rpcs on to the services as bytes, all four kinds, undecoded; it knows packages and no message."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import grpc

from kit import telemetry
from kit.rpc.errors import Fault, Unavailable, Unimplemented
from kit.rpc.interceptors.layer import Context, Handler, abort

FORWARDED = ("authorization", "traceparent", "tracestate")
FORWARDED_PREFIX = "sluice-"
DETAILS_KEY = "grpc-status-details-bin"
Metadata = tuple[tuple[str, str | bytes], ...]


class PassThrough(grpc.GenericRpcHandler):
    """Forwards `/sluice.<service>.v1.*` to its channel.

    The channels must carry no credentials of their own: the caller's go along, and the service judges them.
    Memory is bounded by gRPC's flow control: one message in flight each way and call.
    """

    def __init__(self, channels: Mapping[str, grpc.aio.Channel]) -> None:
        self._channels = dict(channels)

    def service(self, details: grpc.HandlerCallDetails) -> Handler | None:
        """The handler of any method that no service of this server has."""
        method = str(details.method)

        async def forward(requests: AsyncIterator[bytes], context: Context) -> None:
            try:
                name = self._service_of(method, context)
                await _forward(self._channels[name], name, method, requests, context)
            except Fault as fault:
                await abort(context, fault)

        return grpc.stream_stream_rpc_method_handler(forward)

    def _service_of(self, method: str, context: Context) -> str:
        known = ", ".join(f"`{name}`" for name in sorted(self._channels))
        full_name = method.lstrip("/").partition("/")[0]
        parts = full_name.split(".")
        if len(parts) != 4 or parts[0] != "sluice" or parts[2] != "v1" or parts[1] not in self._channels:
            raise Unimplemented(f"`{method}` is not served here; the services behind this address are {known}")
        return parts[1]


async def _forward(
    channel: grpc.aio.Channel, name: str, method: str, requests: AsyncIterator[bytes], context: Context
) -> None:
    start: Any = channel.stream_stream(method)
    call = start(requests, timeout=context.time_remaining(), metadata=_forwarded(context.invocation_metadata()))
    try:
        if initial := _plain(await call.initial_metadata()):
            await context.send_initial_metadata(initial)
        async for response in call:
            await context.write(response)
        context.set_trailing_metadata(_plain(await call.trailing_metadata()))
    except grpc.aio.AioRpcError as error:
        await _refuse(error, name, context)
    finally:
        call.cancel()  # no effect on a call that is over; ends it when our own caller is gone


async def _refuse(error: grpc.aio.AioRpcError, name: str, context: Context) -> None:
    trailing = tuple(error.trailing_metadata() or ())
    explained = any(key == DETAILS_KEY for key, _ in trailing)
    if error.code() is grpc.StatusCode.UNAVAILABLE and not explained:
        raise Unavailable(
            f"the {name} service does not answer; `sluice status` shows what runs",
            metadata={"service": name},
            retry_after_s=1.0,
        ) from None
    await context.abort(error.code(), error.details() or "", _plain(trailing, keep=(DETAILS_KEY,)))


def _forwarded(metadata: Iterable[tuple[str, str | bytes]] | None) -> Metadata:
    """What goes along: a key that was sent twice, too, so that the service judges what its caller sent."""
    kept = [(key, value) for key, value in metadata or () if key in FORWARDED or key.startswith(FORWARDED_PREFIX)]
    if here := telemetry.current_traceparent():
        kept = [(key, value) for key, value in kept if key != "traceparent"] + [("traceparent", here)]
    return tuple(kept)


def _plain(metadata: object, keep: tuple[str, ...] = ()) -> Metadata:
    """What the service itself has set; what belongs to the transport is left out."""
    pairs = metadata or ()
    return tuple(
        (key, value)
        for key, value in pairs  # type: ignore[attr-defined]
        if key in keep or not key.startswith(("grpc-", ":", "content-", "user-agent"))
    )
