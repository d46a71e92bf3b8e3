"""The row schemas: one function a schema, from the bytes of a row in any convention to its canonical bytes.

Canonical rows are JSON in UTF-8 with the fields of the classes below, of which `id`, `group` and `tags` are there where
the row had them. Other fields of a row are dropped.
"""

import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from sluice.rows.answers import pair_of, verdict_of
from sluice.rows.conventions import Turn, turns_of
from sluice.rows.fields import labels_of, matches_of
from sluice.rows.violations import RefusedError, missing, shape, text


class Message(Struct, forbid_unknown_fields=True):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class About(Struct, kw_only=True):
    """What is said about a row: what it is called, whom it belongs with (a patient, say), and words to find it by."""

    id: str | UnsetType = UNSET
    group: str | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET


class SftRow(About):
    """A conversation whose last word is the assistant's."""

    messages: list[Message]


class PretrainRow(About):
    """A text."""

    text: str


class PreferenceRow(About):
    """A prompt and two answers, of which one is better."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]


class FeedbackRow(About):
    """A prompt, an answer, and whether that is a good one."""

    prompt: list[Message]
    completion: list[Message]
    label: bool


class RetrievalRow(About):
    """A query, texts that fit it, and texts that do not."""

    query: str
    positive: list[str]
    negatives: list[str]


class ClassificationRow(About):
    """A text and its labels."""

    text: str
    label: list[str]


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
    return _encode(SftRow(_messages(turns), **_about(fields)))


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
        raise missing("text", fields, "give each row a field `text`", ("id", "group", "tags"))
    return _encode(PretrainRow(text(fields["text"], "text"), **_about(fields)))


def preference(raw: bytes) -> bytes:
    """Return the canonical bytes of a prompt with two answers; RefusedError when it is none."""
    fields = _object(raw)
    prompt, chosen, rejected = pair_of(fields)
    _check_prompt(prompt)
    for answer in (chosen, rejected):
        _check_last(answer)
    return _encode(PreferenceRow(_messages(prompt), _messages(chosen), _messages(rejected), **_about(fields)))


def feedback(raw: bytes) -> bytes:
    """Return the canonical bytes of a prompt, an answer and a verdict; RefusedError when it is none."""
    fields = _object(raw)
    prompt, completion, label = verdict_of(fields)
    _check_prompt(prompt)
    _check_last(completion)
    return _encode(FeedbackRow(_messages(prompt), _messages(completion), label, **_about(fields)))


def retrieval(raw: bytes) -> bytes:
    """Return the canonical bytes of a query with what fits it; RefusedError when it is none."""
    fields = _object(raw)
    return _encode(RetrievalRow(*matches_of(fields), **_about(fields)))


def classification(raw: bytes) -> bytes:
    """Return the canonical bytes of a text with its labels; RefusedError when it is none."""
    fields = _object(raw)
    return _encode(ClassificationRow(*labels_of(fields), **_about(fields)))


SCHEMAS: dict[str, Callable[[bytes], bytes]] = {
    "sft": sft,
    "pretrain": pretrain,
    "preference": preference,
    "feedback": feedback,
    "retrieval": retrieval,
    "classification": classification,
}


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


def _messages(turns: list[Turn]) -> list[Message]:
    return [Message(turn.role, turn.content) for turn in turns]  # type: ignore[arg-type]


def _check_turns(turns: list[Turn]) -> None:
    roles = [turn.role for turn in turns]
    for role in ("user", "assistant"):
        if role not in roles:
            raise _lacks(role, turns)
    _check_last(turns)


def _check_prompt(turns: list[Turn]) -> None:
    if all(turn.role != "user" for turn in turns):
        raise _lacks("user", turns)
    if turns[-1].role == "assistant":
        where, repair = turns[-1].field.rpartition(".")[0], "drop the answer: answers have fields of their own"
        raise RefusedError(where, "wrong-last-role", "the last message from the user", "one from the assistant", repair)


def _check_last(turns: list[Turn]) -> None:
    if turns[-1].role != "assistant":
        raise RefusedError(
            turns[-1].field.rpartition(".")[0],
            "wrong-last-role",
            "the last message from the assistant",
            f"one from the {turns[-1].role}",
            "add the answer or drop what follows the last one",
        )


def _lacks(role: str, turns: list[Turn]) -> RefusedError:
    where = turns[0].field.partition("[")[0] if turns else "prompt"
    return RefusedError(where, "missing-role", f"a message of the {role}", "none", "add one or drop the row")


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
    return {name: field for name, field in value.items() if field is not None}  # as tables have it: null is absent


def _about(row: dict[str, object]) -> dict[str, Any]:
    return {"id": _name(row, "id"), "group": _name(row, "group"), "tags": _tags(row)}


def _name(row: dict[str, object], field: str) -> str | UnsetType:
    value = row.get(field)
    if value is None:
        return UNSET
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RefusedError(field, "wrong-type", "text or a whole number", shape(value), f"give `{field}` as text")
    return str(value)


def _tags(row: dict[str, object]) -> list[str] | UnsetType:
    value = row.get("tags")
    if value is None:
        return UNSET
    if isinstance(value, str):  # all that a cell can say
        return [value] if value.strip() else UNSET
    if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        raise RefusedError("tags", "wrong-type", "a list of text", shape(value), 'give `tags` as ["…"]')
    return value
