"""What of a request no engine is to see, refused here so that no version is blamed for it; knows no model and no route.

An engine would follow a picture's URL from inside the network, fails with its own 500 at some, answers some formats
with bytes that are no JSON, and works for minutes at a request of a hundred thousand texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from services.gateway.worker.errors import InvalidRequest
from sluice.senses import MOST_FRAMES

MAX_INPUTS = 2048  # as OpenAI has it
_INPUTS = ("input", "documents", "items", "text_1", "text_2", "queries", "data_1", "data_2")
#: Settings of how an engine decodes media; a wrong one is its own 500, a large one fills its memory.
_DECODING = ("media_io_kwargs", "mm_processor_kwargs")
#: Elements are decoded here, a microsecond or so each; a picture is one.
MAX_ELEMENTS = 500_000
_FORMATS = (b'"float"', b'"base64"', b"null")
_LONGEST_HEAD = 256
#: What an engine of ours decodes.
SOUNDS = ("wav", "mp3", "flac", "ogg")
_LIST, _OBJECT = b"[{"

Members = Mapping[str, msgspec.Raw]


class _Message(msgspec.Struct):
    content: msgspec.Raw = msgspec.Raw(b"null")


_items = msgspec.json.Decoder(list[msgspec.Raw])
_messages = msgspec.json.Decoder(list[_Message])


def check_prompt(members: Members) -> None:
    """For what is answered by generating: raise InvalidRequest for pictures, sounds and videos that are not in the
    request itself, never quoting them. Messages of text alone, as most are, cost a microsecond a kilobyte.
    """
    _check_decoding(members)
    raw = members.get("messages")
    if raw is not None and not _is_text_alone(raw):
        _check_media("messages", raw)


def check_inputs(members: Members) -> None:
    """For everything else: the same, and InvalidRequest for too many texts at once or an answer in bytes."""
    _check_decoding(members)
    if bytes(members.get("encoding_format", b"null")) not in _FORMATS:
        raise InvalidRequest("`encoding_format` must be float or base64.", param="encoding_format")
    for name, raw in members.items():
        if memoryview(raw)[0] not in (_LIST, _OBJECT):
            continue
        _check_size(name, raw)
        if name in _INPUTS and memoryview(raw)[0] == _LIST:
            items = _items.decode(raw)
            if len(items) > MAX_INPUTS and not bytes(items[0])[:1].isdigit():  # digits: the tokens of one text
                raise InvalidRequest(f"`{name}` has more than {MAX_INPUTS} items; send fewer at once.", param=name)
        _check_media(name, raw)


def _is_text_alone(messages: msgspec.Raw) -> bool:
    _check_size("messages", messages)
    try:
        return all(memoryview(each.content)[0] != _LIST for each in _messages.decode(messages))
    except (msgspec.DecodeError, RecursionError):
        return False


def _check_decoding(members: Members) -> None:
    for name in _DECODING:
        if name in members:
            raise InvalidRequest(f"`{name}` is not taken; leave it out.", param=name)


def _check_size(name: str, raw: msgspec.Raw) -> None:
    if bytes(raw).count(b",") > MAX_ELEMENTS:
        raise InvalidRequest(f"`{name}` has more than {MAX_ELEMENTS} elements; send less at once.", param=name)


def _check_media(name: str, raw: msgspec.Raw) -> None:
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest(f"`{name}` cannot be read; send plain JSON.", param=name) from None
    for part in _parts(value):
        _check_part(part, name)


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every part of every `content` within, however deep."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            content = each.get("content")
            if isinstance(content, list):
                yield from (part for part in content if isinstance(part, dict))
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _check_part(part: dict[str, Any], param: str) -> None:
    if part.get("uuid") is not None and part.get("type") != "text":
        # An engine takes it for the name of a picture that it holds already, which may be somebody else's.
        raise InvalidRequest("The `uuid` of a part is not taken; leave it out.", param=param)
    if (sound := part.get("input_audio")) is not None and not _is_sound(sound):
        raise InvalidRequest(
            f"`input_audio` must hold `data` in base64 and `format`, one of {', '.join(SOUNDS)}.", param=param
        )
    for key, value in part.items():
        if not key.endswith("_url"):
            continue
        url = value.get("url") if isinstance(value, dict) else value
        if not isinstance(url, str) or not _is_inline(url):
            raise InvalidRequest(
                f"`{key[:40]}` must hold a data URL, such as data:image/png;base64,…: nothing is fetched.", param=param
            )
        if key == "video_url" and url.count(",") > MOST_FRAMES:  # one before each frame
            raise InvalidRequest(f"A video may have {MOST_FRAMES} frames; leave some out.", param=param)


def _is_sound(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("data"), str) and value.get("format", "wav") in SOUNDS


def _is_inline(url: str) -> bool:
    """Whether it is `data:<type>;base64,<data>` (RFC 2397)."""
    return url.startswith("data:") and url[:_LONGEST_HEAD].partition(",")[0].endswith(";base64")
