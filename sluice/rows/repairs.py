"""The repairs that violations propose, made; whether they were meant is for people to say."""

import re
from typing import Any

import msgspec

from sluice.rows.formats.encodings import recoded
from sluice.rows.violations import RefusedError, Rename

_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def repaired(raw: bytes, error: RefusedError) -> bytes | None:
    """The row with the error's repair made; None where it proposes none, or none that changes anything."""
    if error.kind == "wrong-encoding":
        return recoded(raw)
    if error.fix is None:
        return None
    row = msgspec.json.decode(raw)
    *path, last = _steps(error.field)
    try:
        parent: Any = row
        for step in path:
            parent = parent[step]
        if isinstance(error.fix, Rename):
            if error.fix.new in parent:
                return None
            parent[error.fix.new] = parent.pop(error.fix.old)
        else:
            parent[last] = error.fix.value
    except (KeyError, IndexError, TypeError):
        return None
    return msgspec.json.encode(row)


def renamed(raw: bytes, names: dict[str, str], *, loose: bool = False) -> bytes:
    """The row with its fields under the names that people gave them; bytes that are no object stay as they are.

    A name hides the field that had its meaning; where they are `loose`, in rows that have the name.
    """
    try:
        row = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return raw
    if not isinstance(row, dict):
        return raw
    meant = {names[name]: value for name, value in row.items() if name in names and not (loose and value is None)}
    taken = {*names, *(meant if loose else names.values())}
    return msgspec.json.encode({**{name: value for name, value in row.items() if name not in taken}, **meant})


def _steps(field: str) -> list[str | int]:
    return [name or int(index) for name, index in _STEP.findall(field)]
