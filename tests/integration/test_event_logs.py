"""The gateway's EventService: its own log, or another service's, in the name of the caller."""

from typing import Any

import grpc
import pytest
from rpc_echo import allow_all

from kit.rpc.client import connect
from kit.rpc.errors import Invalid, from_rpc_error
from kit.rpc.interceptors import interceptors
from kit.rpc.server import serve
from services.gateway.event_logs import EventLogs
from sluice.events import v1 as events


class Log(events.EventServiceServicer):
    """Says whose it is, and under which key it was asked."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def ListEvents(self, request: Any, context: Any) -> events.ListEventsResponse:
        key = dict(context.invocation_metadata()).get("authorization", "none")
        return events.ListEventsResponse(next_page_token=f"{self.name} {key}")


async def test_the_metadata_says_whose_log_is_read() -> None:
    layers = interceptors(allow_all, lambda *_: None)
    add = events.add_EventServiceServicer_to_server
    async with await serve("127.0.0.1:0", [(add, Log("trainer"))], layers) as other:
        async with connect(other.address) as behind:
            logs = EventLogs(Log("gateway"), {"trainer": behind})  # type: ignore[arg-type]
            async with await serve("127.0.0.1:0", [(add, logs)], layers) as server:
                async with connect(server.address, token="k") as channel:
                    stub = events.EventServiceStub(channel)
                    request = events.ListEventsRequest()
                    own = await stub.ListEvents(request)
                    theirs = await stub.ListEvents(request, metadata=(("sluice-service", "trainer"),))
                    with pytest.raises(grpc.RpcError) as caught:
                        await stub.ListEvents(request, metadata=(("sluice-service", "nobody"),))
    assert own.next_page_token == "gateway Bearer k"
    assert theirs.next_page_token == "trainer Bearer k"
    fault = from_rpc_error(caught.value)
    assert isinstance(fault, Invalid) and "`trainer`" in fault.message
