"""What middleware of an engine's server needs to ask the server itself and to answer in its stead; knows no path.

Where the model lies and the most tokens of a text come in the environment: middleware is given nothing else.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: The folder of the model, and the most tokens of a text: what is beyond them is cut off.
FOLDER, LONGEST = "SLUICE_MODEL_FOLDER", "SLUICE_MAX_LENGTH"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[..., Awaitable[None]]


def cutting_tokenizer(folder: Path, longest: int) -> "Tokenizer":
    """That of the model, which cuts and does not fill up, whatever its file says."""
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found.no_padding()
    found.enable_truncation(longest)
    return found


async def read(receive: Receive) -> bytes:
    """The whole body of a request."""
    pieces, more = [], True
    while more:
        message = await receive()
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(pieces)


async def asked(app: Application, scope: Message, receive: Receive, path: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of the application's answer to another request in the place of this one, whose body was read."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
    headers.append((b"content-length", str(len(body)).encode()))
    inner = {**scope, "path": path, "raw_path": path.encode(), "headers": headers}
    rest: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    status, pieces = 500, []

    async def given() -> Message:
        return rest.pop() if rest else await receive()  # after the body, whether the client is gone

    async def kept(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        pieces.append(message.get("body", b""))

    await app(inner, given, kept)
    return status, b"".join(pieces)


async def answer(send: Send, status: int, body: bytes) -> None:
    """Answers with JSON."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
