"""A row as an object of fields, and what is said about it; what it says is not known here."""

import re
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from sluice.rows.violations import SAVE_AS_UTF_8, RefusedError, shape

_decode_any = msgspec.json.Decoder().decode
_BYTE = re.compile(r"byte (\d+)")


def object_of(raw: bytes) -> dict[str, object]:
    """The fields of a row that have values; RefusedError when the bytes are no JSON object."""
    try:
        value = _decode_any(raw)
    except UnicodeDecodeError as error:
        raise RefusedError("", "wrong-encoding", "UTF-8", "other bytes", SAVE_AS_UTF_8) from error
    except (msgspec.DecodeError, RecursionError) as error:
        place = _BYTE.search(str(error))
        found = (
            f"no JSON from byte {int(place[1]) + 1} of {len(raw)}"
            if place
            else f"JSON that breaks off after {len(raw)} bytes"
        )
        if "utf-8" in str(error).lower():
            raise RefusedError("", "wrong-encoding", "UTF-8", found, SAVE_AS_UTF_8) from error
        raise RefusedError(
            "", "malformed-json", "one JSON object", found, "write the row with a JSON library"
        ) from error
    if not isinstance(value, dict):
        raise RefusedError("", "wrong-type", "one JSON object", shape(value), "put the values under field names")
    return {name: field for name, field in value.items() if field is not None}  # as tables have it: null is absent


def about(row: dict[str, object]) -> dict[str, Any]:
    """`id`, `group` and `tags`, where the row has them; RefusedError when one is of another kind."""
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
