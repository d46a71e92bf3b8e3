"""Reads a request's body within its limits of size and time; knows nothing of what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from services.gateway.worker.answers import Receive
from services.gateway.worker.errors import BodyTimeout, ClientGone, TooLarge
from services.gateway.worker.patience import Patience


async def read_body(
    receive: Receive, headers: Mapping[bytes, bytes], limit_bytes: int, timeout_s: float, patience: Patience
) -> bytes:
    """The whole body. Raises TooLarge, BodyTimeout or ClientGone."""
    body = b""
    arrived = False

    def hurry() -> None:
        if not arrived:
            deadline.reschedule(asyncio.get_running_loop().time() + timeout_s)

    if int(headers.get(b"content-length", b"0")) > limit_bytes:
        raise TooLarge(f"The body is longer than {limit_bytes} bytes; send less.")
    try:
        async with asyncio.timeout(None) as deadline:
            patience.add(hurry)
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone("The client closed the connection.")
                piece: bytes = message["body"]
                body = body + piece if body else piece
                if len(body) > limit_bytes:
                    raise TooLarge(f"The body is longer than {limit_bytes} bytes; send less.")
                if not message["more_body"]:
                    return body
    except TimeoutError:
        raise BodyTimeout("The body did not arrive in time; send it faster.") from None
    finally:
        arrived = True
