"""Filters as `state = "READY" AND task_type != "sft"` (a subset of AIP-160); it selects nothing itself."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from kit.rpc.errors import Invalid
from sluice.errors import v1 as errors

MAX_LENGTH = 1000
TOKEN = re.compile(r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<op>!=|=)|(?P<word>[A-Za-z_][A-Za-z0-9_.]*)|(?P<bad>\S))""")


class Condition(NamedTuple):
    """One comparison; ``op`` is ``=`` or ``!=``."""

    field: str
    op: str
    value: str


def parse(text: str, fields: Collection[str]) -> list[Condition]:
    """The conditions of a filter, all of which must hold; none for an empty filter.

    Raises Invalid (INVALID_FILTER) when the text does not parse or names a field outside ``fields``.
    """
    if not text.strip():
        return []
    if len(text) > MAX_LENGTH:
        raise _wrong(f"filter is longer than {MAX_LENGTH} characters")
    tokens = [(str(found.lastgroup), found.group(str(found.lastgroup))) for found in TOKEN.finditer(text)]
    conditions = [_condition(tokens[at : at + 3], fields) for at in range(0, len(tokens), 4)]
    joints = tokens[3::4]
    if any(joint != ("word", "AND") for joint in joints) or len(joints) != len(conditions) - 1:
        raise _wrong("filter joins its conditions by something else than AND")
    return conditions


def _condition(tokens: list[tuple[str, str]], fields: Collection[str]) -> Condition:
    if [kind for kind, _ in tokens] != ["word", "op", "text"]:
        raise _wrong('filter is not of the form field = "value"')
    (_, field), (_, op), (_, quoted) = tokens
    if field not in fields:
        known = ", ".join(f"`{name}`" for name in sorted(fields)) or "none"
        raise _wrong(f"filter names `{field}`, which cannot be filtered by; what can be is {known}")
    return Condition(field, op, re.sub(r"\\(.)", r"\1", quoted[1:-1]))


def _wrong(what: str) -> Invalid:
    return Invalid(
        f'{what}; write it as `field = "value" AND other != "value"`',
        reason=errors.ERROR_REASON_INVALID_FILTER,
        violations=[("filter", what)],
    )
