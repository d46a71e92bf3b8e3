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
    pieces: list[bytes] = []
    size = 0
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
                pieces.append(message["body"])
                size += len(pieces[-1])
                if size > limit_bytes:
                    raise TooLarge(f"The body is longer than {limit_bytes} bytes; send less.")
                if not message["more_body"]:
                    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    except TimeoutError:
        raise BodyTimeout("The body did not arrive in time; send it faster.") from None
    finally:
        arrived = True
