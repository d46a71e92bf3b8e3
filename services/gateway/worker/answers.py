"""The ASGI messages a worker answers with by itself, and the types they are made of; knows no path and no
policy.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from services.gateway.worker.errors import GatewayError, MethodNotAllowed

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
Headers = list[tuple[bytes, bytes]]


def only(method: str, *allowed: str) -> None:
    """Raise MethodNotAllowed unless the method is one of `allowed`."""
    if method not in allowed:
        raise MethodNotAllowed(f"{method} is not allowed here; use {' or '.join(allowed)}.")


async def refuse(send: Send, error: GatewayError, base: Headers) -> None:
    """Send an error as its OpenAI body."""
    headers = [*base, *error.headers]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    await answer(send, error.status, error.body(), headers)


async def answer(
    send: Send, status: int, body: bytes, headers: Headers, content_type: bytes = b"application/json"
) -> None:
    """Send a whole answer."""
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
