"""How one interceptor surrounds all four kinds of rpc; it knows nothing of what a layer is for."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, NoReturn, TypeAlias

import grpc

from kit.rpc.errors import Fault, to_status

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
# Methods that tools call without a key: health checks and reflection.
OPEN_SERVICES = ("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")


def is_open(method: str) -> bool:
    """Whether `/package.Service/Method` is health or reflection."""
    return method.lstrip("/").partition("/")[0] in OPEN_SERVICES


def is_passed_through(handler: Handler) -> bool:
    """Whether the handler forwards bytes undecoded; the service behind it judges the call."""
    return handler.request_deserializer is None


class Layer(grpc.aio.ServerInterceptor):
    """An interceptor as two hooks: ``around`` the rpc and ``on_request`` for each message that comes in.

    Every rpc runs in a task of its own, so context variables set in ``around`` need no reset.
    """

    def applies(self, method: str, handler: Handler) -> bool:
        """Whether the layer wants to see this method."""
        return True

    def around(self, method: str, context: Context) -> AbstractAsyncContextManager[Any]:
        """Surrounds the rpc; what it yields is handed to ``on_request``."""
        raise NotImplementedError

    async def on_request(self, method: str, context: Context, state: Any, message: Any, first: bool) -> None:
        """Sees each request message before the servicer does; raising refuses it.

        The first message of a stream is read before the servicer starts; it is None when the stream has none.
        """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps the handler that the inner layers give."""
        handler = await continuation(details)
        method = str(details.method)
        if handler is None or not self.applies(method, handler):
            return handler
        return self._wrapped(method, handler)

    def _wrapped(self, method: str, handler: Handler) -> Handler:
        async def one_request(request: Any, context: Context) -> Any:
            async with self.around(method, context) as state:
                await self.on_request(method, context, state, request, True)
                return await respond(request, context)

        async def many_requests(requests: AsyncIterator[Any], context: Context) -> Any:
            async with self.around(method, context) as state:
                if looks:
                    first = await anext(requests, None)
                    await self.on_request(method, context, state, first, True)
                    requests = seen(first, requests, context, state)
                return await respond(requests, context)

        async def seen(first: Any, requests: AsyncIterator[Any], context: Context, state: Any) -> AsyncIterator[Any]:
            if first is not None:
                yield first
            async for message in requests:
                await self.on_request(method, context, state, message, False)
                yield message

        looks = type(self).on_request is not Layer.on_request
        kind = ("stream" if handler.request_streaming else "unary") + "_"
        kind += "stream" if handler.response_streaming else "unary"
        respond = _write_all(getattr(handler, kind)) if handler.response_streaming else getattr(handler, kind)
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        wrapped: Handler = make(
            many_requests if handler.request_streaming else one_request,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return wrapped


def _write_all(behavior: Callable[[Any, Context], Any]) -> Callable[[Any, Context], Awaitable[None]]:
    """A streaming behavior as a coroutine that writes, so that a cancelled call unwinds inside the layers."""

    async def write(requests: Any, context: Context) -> None:
        responses = behavior(requests, context)
        if inspect.isawaitable(responses):
            await responses
            return
        async with aclosing(responses):
            async for response in responses:
                await context.write(response)

    return write


async def abort(context: Context, fault: Fault) -> NoReturn:
    """Ends the rpc with the status of a fault; always raises."""
    status = to_status(fault)
    await context.abort(fault.code, fault.message, (("grpc-status-details-bin", status.SerializeToString()),))
    raise AssertionError("abort always raises")


def code_of(context: Context) -> grpc.StatusCode:
    """The code that the rpc ended with so far; OK while none was set."""
    code = context.code()
    if isinstance(code, grpc.StatusCode):
        return code
    return next((known for known in grpc.StatusCode if known.value[0] == code), grpc.StatusCode.OK)
