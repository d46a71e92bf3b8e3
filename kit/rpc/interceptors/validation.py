"""Holds every request message to the rules in the contract (protovalidate); it has no rules of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import protovalidate
from google.protobuf.message import Message

from kit.rpc.errors import Invalid
from kit.rpc.interceptors.layer import Context, Handler, Layer, is_open, is_passed_through

SHOWN = 3


class Validation(Layer):
    """Refuses a message with BadRequest violations, field path and text each."""

    def applies(self, method: str, handler: Handler) -> bool:
        """What is passed through is undecoded here, and validated by the service behind."""
        return not is_open(method) and not is_passed_through(handler)

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        """Nothing surrounds the rpc."""
        yield

    async def on_request(self, method: str, context: Context, state: Any, message: Any, first: bool) -> None:
        """Raises Invalid for a message that breaks a rule."""
        if message is not None:
            validate(message)


def validate(message: Message) -> None:
    """Raises Invalid (INVALID_FIELD) naming the fields that break a rule of the contract."""
    violations = [(path_of(found.proto), found.proto.message) for found in protovalidate.collect_violations(message)]
    if not violations:
        return
    shown = "; ".join(f"`{field}` {text}" if field else text for field, text in violations[:SHOWN])
    more = f"; and {len(violations) - SHOWN} more" if len(violations) > SHOWN else ""
    raise Invalid(f"{shown}{more}", violations=violations)


def path_of(violation: Any) -> str:
    """The path of the field as one writes it: `dataset.tags[2]`, `labels["a"]`."""
    path = ""
    for element in violation.field.elements if violation.field else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            value = element.subscript.value
            path += f'["{value}"]' if isinstance(value, str) else f"[{value}]"
    return path
