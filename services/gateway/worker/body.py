"""The few JSON members a gateway reads and rewrites; every other byte of a request or answer passes as it
came.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from services.gateway.worker.errors import Broken, InvalidRequest, Refused

_MAX_SEARCHED = 64 * 1024
_ECHO_CHARS = 12

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode
_text = msgspec.json.Decoder(str)
_name = msgspec.json.Decoder(str | None)


class Usage(msgspec.Struct):
    """Tokens as the engine counted them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


_usage = msgspec.json.Decoder(Usage | None)
_flag = msgspec.json.Decoder(bool | None)


class Request(NamedTuple):
    """A parsed request: the members it may be routed by, and all of them undecoded."""

    model: str
    user: str | None
    stream: bool
    members: dict[str, msgspec.Raw]

    def for_engine(self, engine_model: str) -> bytes:
        """The body with `model` replaced; a member sent twice goes out once, as it was read here."""
        self.members["model"] = msgspec.Raw(_encode(engine_model))
        return _encode(self.members)


def parse_request(body: bytes) -> Request:
    """Read `model`, `user` and `stream`. Raises InvalidRequest naming what is wrong, never quoting it."""
    try:
        members = _members.decode(body)
        if not body.isascii():
            body.decode()  # msgspec skips over strings it isn't asked for without looking at their bytes
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not UTF-8; send UTF-8 JSON.") from None
    except msgspec.ValidationError:
        raise InvalidRequest("The body is not a JSON object; send one with `model`.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        reason = "it nests too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidRequest(f"The body is not JSON: {reason}.") from None
    return Request(
        _member(members, "model", _text, "a string: the endpoint's name"),
        _member(members, "user", _name, "a string") if "user" in members else None,
        bool(_member(members, "stream", _flag, "true or false")) if "stream" in members else False,
        members,
    )


def rewrite_answer(body: bytes, model: str) -> tuple[bytes, Usage | None]:
    """An engine's whole answer with `model` set to the name the client used, and its usage. Raises Broken."""
    try:
        members = _members.decode(body)
        members["model"] = msgspec.Raw(_encode(model))
        usage = _usage.decode(members["usage"]) if "usage" in members else None
    except (msgspec.DecodeError, RecursionError):
        raise Broken("The engine's answer is not an OpenAI object.") from None
    return _encode(members), usage


def refusal(status: int, retry_after: bytes, answer: bytes, request: Request, secrets: tuple[str, ...]) -> Refused:
    """An engine's error answer as the client may see it.

    The engine's own sentence passes only for the caller's mistakes, and only when it repeats neither a piece
    of the request's values nor one of `secrets` (the engine's address, key and model name).
    """
    seconds = int(retry_after) if retry_after.isdigit() and len(retry_after) < 6 else None
    if status == 429:
        return Refused("The engine is at its limit; try again in a moment.", status=429, retry_after_s=seconds or 1)
    if status == 503:
        return Refused("The engine is not available; try again in a moment.", status=503, retry_after_s=seconds or 1)
    sentence = _sentence(answer)
    named = sentence is not None and any(secret and secret in sentence for secret in secrets)
    if status in (400, 413, 422):
        if sentence is None or named or _echoes(sentence, request):
            sentence = "The engine refused the request; check its parameters and its length."
        return Refused(sentence, status=413 if status == 413 else 400)
    # It has not what was asked for. A 404 that names the model is another thing: the engine has lost the version.
    if status == 501 or (status == 404 and not named):
        return Refused("The model does not do what the request asks for; check its path and parameters.", status=400)
    return Refused("The engine failed to answer; try again.", status=504 if status == 504 else 502)


def _member(members: dict[str, msgspec.Raw], name: str, decoder: msgspec.json.Decoder[Any], what: str) -> Any:
    try:
        return decoder.decode(members[name])
    except (KeyError, msgspec.DecodeError):
        raise InvalidRequest(f"`{name}` must be {what}.", param=name) from None


def _sentence(answer: bytes) -> str | None:
    try:
        body = msgspec.json.decode(answer)
    except (msgspec.DecodeError, RecursionError):
        return None
    error = body.get("error", body) if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) and 0 < len(message) <= 500 else None


def _echoes(sentence: str, request: Request) -> bool:
    values: list[str] = []
    for name, raw in request.members.items():
        if name != "model":
            _strings(msgspec.json.decode(raw), values)
    if sum(map(len, values)) > _MAX_SEARCHED or "data:" in sentence:
        return True
    text = "\0".join(values)
    if any(len(value) > 3 and value in sentence for value in values):
        return True
    windows = (sentence[i : i + _ECHO_CHARS] for i in range(len(sentence) - _ECHO_CHARS + 1))
    return any(window in text for window in windows)


def _strings(value: object, into: list[str]) -> None:
    if isinstance(value, str):
        if not value.startswith("data:"):  # megabytes of a picture; see `_echoes`
            into.append(value)
    elif isinstance(value, dict):
        for each in value.values():
            _strings(each, into)
    elif isinstance(value, list):
        for each in value:
            _strings(each, into)
