"""Page tokens, opaque to callers and bound to the query they continue; it reads no page."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json

from kit.rpc.errors import Invalid
from sluice.errors import v1 as errors

Cursor = list[str | int]


def page_size(asked: int, default: int = 50, most: int = 1000) -> int:
    """The size of a page: ``asked``, or ``default`` for 0, and never above ``most``."""
    return min(asked or default, most)


def encode(cursor: Cursor, *query: str) -> str:
    """A token that continues after ``cursor`` (sort keys of the last row) in this query."""
    text = json.dumps([_seal(query), *cursor], separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(token: str, *query: str, of: tuple[type, ...] | None = None) -> Cursor | None:
    """The cursor of a token, None for the first page; Invalid (INVALID_PAGE_TOKEN) for another query's.

    A token is not signed, so anybody can make one: ``of`` says which types its cursor must have.
    """
    if not token:
        return None
    try:
        content: list[str | int] = json.loads(
            base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        )
        seal, *cursor = content
    except (binascii.Error, ValueError, TypeError, RecursionError):
        raise wrong_token() from None
    sound = all(isinstance(part, str) or (isinstance(part, int) and abs(part) < 2**63) for part in cursor)
    if seal != _seal(query) or not sound or (of is not None and tuple(map(type, cursor)) != of):
        raise wrong_token()
    return cursor


def _seal(query: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(query).encode()).hexdigest()[:12]


def wrong_token() -> Invalid:
    """For a token that this method did not give for this query."""
    return Invalid(
        "page_token was not given by this method for this query; leave it empty for the first page",
        reason=errors.ERROR_REASON_INVALID_PAGE_TOKEN,
        violations=[("page_token", "was not given by this method for this query")],
    )
