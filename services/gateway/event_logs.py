"""The event logs of all services behind one address: the metadata key ``sluice-service`` says whose is meant."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from kit.bus import EventServicer
from kit.rpc.errors import Invalid, from_rpc_error
from sluice.events import v1 as events

KEY = "sluice-service"
Context = Any
ResponseT = TypeVar("ResponseT", bound=Message)


class EventLogs(events.EventServiceServicer):
    """Answers for the gateway itself, and asks the others in the name of the caller."""

    def __init__(self, own: EventServicer, behind: Mapping[str, grpc.aio.Channel]) -> None:
        self.own = own
        self.behind = {name: events.EventServiceStub(channel) for name, channel in behind.items()}

    async def ListEvents(self, request: events.ListEventsRequest, context: Context) -> events.ListEventsResponse:
        name = self._named(context)
        if name == "gateway":
            return await self.own.ListEvents(request, context)
        return await _passed_on(self.behind[name].ListEvents, name, request, context)

    async def WatchEvents(
        self, request: events.WatchEventsRequest, context: Context
    ) -> AsyncIterator[events.WatchEventsResponse]:
        name = self._named(context)
        if name == "gateway":
            async for response in self.own.WatchEvents(request, context):
                yield response
            return
        try:
            async for response in self.behind[name].WatchEvents(request, metadata=_credentials(context)):
                yield response
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, f"the {name} service") from error

    async def ListDeadLetters(
        self, request: events.ListDeadLettersRequest, context: Context
    ) -> events.ListDeadLettersResponse:
        name = self._named(context)
        if name == "gateway":
            return await self.own.ListDeadLetters(request, context)
        return await _passed_on(self.behind[name].ListDeadLetters, name, request, context)

    async def ReplayDeadLetters(
        self, request: events.ReplayDeadLettersRequest, context: Context
    ) -> events.ReplayDeadLettersResponse:
        name = self._named(context)
        if name == "gateway":
            return await self.own.ReplayDeadLetters(request, context)
        return await _passed_on(self.behind[name].ReplayDeadLetters, name, request, context)

    def _named(self, context: Context) -> str:
        name = dict(context.invocation_metadata() or ()).get(KEY, "gateway")
        if name != "gateway" and name not in self.behind:
            known = ", ".join(f"`{each}`" for each in ("gateway", *sorted(self.behind)))
            raise Invalid(f"metadata `{KEY}` names `{name}`, which is no service; it is one of {known}")
        return str(name)


async def _passed_on(
    method: Callable[..., Awaitable[ResponseT]], name: str, request: Message, context: Context
) -> ResponseT:
    """The answer of the service behind, asked with what is left of the time and in the name of the caller."""
    try:
        return await method(request, timeout=context.time_remaining(), metadata=_credentials(context))
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, f"the {name} service") from error


def _credentials(context: Context) -> tuple[tuple[str, str | bytes], ...]:
    return tuple((key, value) for key, value in context.invocation_metadata() or () if key == "authorization")
