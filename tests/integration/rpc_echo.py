"""A service with one rpc of each kind, for the tests of kit.rpc; its messages are those of WriteUpload."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool

from kit.auth.principal import Principal
from sluice.dataset import v1 as dataset
from sluice.types import v1 as types

SERVICE = "sluice.echo.v1.EchoService"
KINDS = ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream")
Message = dataset.WriteUploadRequest
UPLOAD = "projects/p/datasets/d/uploads/u"
Act = Callable[[dataset.WriteUploadRequest], None]


def message(text: str = "a", name: str = UPLOAD) -> dataset.WriteUploadRequest:
    """A message that passes validation."""
    return dataset.WriteUploadRequest(name=name, data=text.encode())


def _declare() -> None:
    file = descriptor_pb2.FileDescriptorProto(
        name="sluice/echo/v1/echo_service.proto",
        package="sluice.echo.v1",
        syntax="proto3",
        dependency=["sluice/dataset/v1/upload_service.proto", "sluice/types/v1/access.proto"],
    )
    service = file.service.add(name="EchoService")
    for kind in (*KINDS, "Undeclared"):
        method = service.method.add(name=kind, input_type=".sluice.dataset.v1.WriteUploadRequest")
        method.output_type = method.input_type
        method.client_streaming, method.server_streaming = kind.startswith("Stream"), kind.endswith("Stream")
        if kind != "Undeclared":
            method.options.Extensions[types.access].roles.append(types.ROLE_ALGORITHM)
    descriptor_pool.Default().Add(file)


_declare()


class Echo(grpc.GenericRpcHandler):
    """Answers each message with itself after ``act`` saw it; keeps the metadata of the last call."""

    def __init__(self, act: Act = lambda _: None) -> None:
        self._act = act
        self.started = 0
        self.metadata: dict[str, Any] = {}
        behaviors: dict[str, Any] = dict(zip(KINDS, (self._uu, self._us, self._su, self._ss), strict=True))
        behaviors["Undeclared"] = self._uu
        self._handlers = {
            f"/{SERVICE}/{kind}": getattr(grpc, f"{word(kind)}_rpc_method_handler")(
                behavior,
                request_deserializer=Message.FromString,
                response_serializer=Message.SerializeToString,
            )
            for kind, behavior in behaviors.items()
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._handlers.get(details.method)

    def _start(self, context: grpc.aio.ServicerContext) -> None:
        self.started += 1
        self.metadata = dict(context.invocation_metadata())
        context.set_trailing_metadata((("sluice-trailer", "kept"),))

    async def _uu(self, request: Message, context: grpc.aio.ServicerContext) -> Message:
        self._start(context)
        self._act(request)
        return request

    async def _us(self, request: Message, context: grpc.aio.ServicerContext) -> AsyncIterator[Message]:
        self._start(context)
        for _ in range(3):
            yield request
        self._act(request)

    async def _su(self, requests: AsyncIterator[Message], context: grpc.aio.ServicerContext) -> Message:
        self._start(context)
        data = b""
        async for request in requests:
            self._act(request)
            data += request.data
        return Message(data=data)

    async def _ss(self, requests: AsyncIterator[Message], context: grpc.aio.ServicerContext) -> AsyncIterator[Message]:
        self._start(context)
        async for request in requests:
            self._act(request)
            yield request


def word(kind: str) -> str:
    """`UnaryStream` as gRPC's own names have it: `unary_stream`."""
    if kind == "Undeclared":
        return "unary_unary"
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()


def invoke(channel: grpc.aio.Channel, kind: str, *messages: Message, **options: Any) -> Any:
    """Starts the call; a stream of requests when the kind has one."""
    stub = getattr(channel, word(kind))(f"/{SERVICE}/{kind}", Message.SerializeToString, Message.FromString)
    return stub(iter(messages) if kind.startswith("Stream") else messages[0], **options)


async def answers(channel: grpc.aio.Channel, kind: str, *messages: Message, **options: Any) -> list[str]:
    """The texts that come back from a whole call."""
    call = invoke(channel, kind, *messages, **options)
    if kind.endswith("Stream"):
        return [response.data.decode() async for response in call]
    return [(await call).data.decode()]


def allow_all(_: Any) -> Principal:
    """Authenticates everyone as the same principal."""
    return Principal("projects/p/apiKeys/k", frozenset({("projects/p", int(types.ROLE_ALGORITHM))}))
