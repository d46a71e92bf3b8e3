"""The row schemas: one function a schema, from the bytes of a row in any convention to its canonical bytes.

Canonical rows are JSON without spaces, in UTF-8, with the fields in this order: `messages` (each `role`,
`content`) or `text`, then `id` and `tags` where the row had them. Other fields of a row are dropped.
"""

import re
from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from sluice.rows.conventions import Turn, turns_of
from sluice.rows.violations import RefusedError, missing, shape, text


class Message(Struct, forbid_unknown_fields=True):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class SftRow(Struct):
    """A conversation whose last word is the assistant's."""

    messages: list[Message]
    id: str | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET


class PretrainRow(Struct):
    """A text."""

    text: str
    id: str | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET


_encode = msgspec.json.Encoder().encode
_decode_any = msgspec.json.Decoder().decode
_decode_sft = msgspec.json.Decoder(SftRow).decode
_decode_pretrain = msgspec.json.Decoder(PretrainRow).decode
_BYTE = re.compile(r"byte (\d+)")


def sft(raw: bytes) -> bytes:
    """Return the canonical bytes of a conversation; RefusedError when it is none.

    Takes OpenAI messages, ShareGPT, Alpaca, query/response, prompt/completion and question/answer.
    """
    try:
        row = _decode_sft(raw)
        if _is_sound(row.messages):
            return _encode(row)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # another convention, or wrong: the slow way tells
    fields = _object(raw)
    turns = turns_of(fields)
    _check_turns(turns)
    messages = [Message(turn.role, turn.content) for turn in turns]  # type: ignore[arg-type]
    return _encode(SftRow(messages, _id(fields), _tags(fields)))


def pretrain(raw: bytes) -> bytes:
    """Return the canonical bytes of a text; RefusedError when it is none."""
    try:
        row = _decode_pretrain(raw)
        if row.text.strip():
            return _encode(row)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    fields = _object(raw)
    if "text" not in fields:
        raise missing("text", fields, "give each row a field `text`", ("id", "tags"))
    return _encode(PretrainRow(text(fields["text"], "text"), _id(fields), _tags(fields)))


SCHEMAS: dict[str, Callable[[bytes], bytes]] = {"sft": sft, "pretrain": pretrain}


def check_row(raw: bytes, row_schema: str) -> bytes:
    """Return the canonical bytes of one row; RefusedError when it breaks the schema."""
    return SCHEMAS[row_schema](raw)


def _is_sound(messages: list[Message]) -> bool:
    if not messages or messages[-1].role != "assistant":
        return False
    asked = False
    for message in messages:
        if not message.content.strip():
            return False
        asked = asked or message.role == "user"
    return asked


def _check_turns(turns: list[Turn]) -> None:
    roles = [turn.role for turn in turns]
    where = turns[0].field.partition("[")[0]
    for role in ("user", "assistant"):
        if role not in roles:
            raise RefusedError(where, "missing-role", f"a message of the {role}", "none", "add one or drop the row")
    if roles[-1] != "assistant":
        raise RefusedError(
            turns[-1].field.rpartition(".")[0],
            "wrong-last-role",
            "the last message from the assistant",
            f"one from the {roles[-1]}",
            "add the answer or drop what follows the last one",
        )


def _object(raw: bytes) -> dict[str, object]:
    try:
        value = _decode_any(raw)
    except UnicodeDecodeError as error:
        raise RefusedError("", "wrong-encoding", "UTF-8", "other bytes", "save the file as UTF-8") from error
    except (msgspec.DecodeError, RecursionError) as error:
        place = _BYTE.search(str(error))
        found = (
            f"no JSON from byte {int(place[1]) + 1} of {len(raw)}"
            if place
            else f"JSON that breaks off after {len(raw)} bytes"
        )
        if "utf-8" in str(error).lower():
            raise RefusedError("", "wrong-encoding", "UTF-8", found, "save the file as UTF-8") from error
        raise RefusedError(
            "", "malformed-json", "one JSON object", found, "write the row with a JSON library"
        ) from error
    if not isinstance(value, dict):
        raise RefusedError("", "wrong-type", "one JSON object", shape(value), "put the values under field names")
    return value


def _id(row: dict[str, object]) -> str | UnsetType:
    value = row.get("id")
    if value is None:
        return UNSET
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RefusedError("id", "wrong-type", "text or a whole number", shape(value), "give `id` as text")
    return str(value)


def _tags(row: dict[str, object]) -> list[str] | UnsetType:
    value = row.get("tags")
    if value is None:
        return UNSET
    if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        raise RefusedError("tags", "wrong-type", "a list of text", shape(value), 'give `tags` as ["…"]')
    return value
