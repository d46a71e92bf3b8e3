"""The beginning of a UUID, looked up in the suite; everything else is names.py's, offline."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from kit.rpc.errors import NotFound
from sluice.client import names
from sluice.client.connection import Connection

#: Resources that are looked through for the beginning of an id, newest first.
DEPTH = 1000


async def by_uuid(
    connection: Connection,
    collection: str,
    wanted: str,
    kind: str,
    method: Callable[..., Any],
    request: Any,
    items: Callable[[Any], Iterable[Any]],
) -> str:
    """The resource name for a full name, a UUID, or a beginning of one that only one resource has.

    Raises NotFound when none has it, Invalid when several do.
    """
    if wanted.startswith("projects/"):
        return wanted
    if names.is_uuid(wanted):
        return f"{connection.project}/{collection}/{wanted}"
    if not names.is_uuid_start(wanted):
        raise NotFound(f"there is no {kind} `{wanted}`; give its UUID, or at least the first four characters of it")
    found = [
        item.name
        async for item in connection.pages(method, request, items, limit=DEPTH)
        if item.name.rsplit("/", 1)[-1].startswith(wanted)
    ]
    return names.only(found, wanted, kind)


async def newest(pages: AsyncIterator[Any], missing: str) -> str:
    """The name of the first item; raises NotFound with ``missing`` when there is none."""
    async for item in pages:
        return str(item.name)
    raise NotFound(missing)
