"""Request ids and W3C trace context (https://www.w3.org/TR/trace-context/); creates no spans and decides no
sampling.
"""

from __future__ import annotations

import re
from random import getrandbits
from typing import NamedTuple

_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class Trace(NamedTuple):
    """One hop: the caller's trace id (or a new one), this hop's span id, the sampled flag as it came (two
    hex digits).
    """

    trace_id: str
    span_id: str
    flags: str
    header: bytes


def continue_trace(traceparent: bytes | None) -> Trace:
    """A new span in the caller's trace; a malformed or absent header starts a new, unsampled trace."""
    span_id = f"{getrandbits(64) or 1:016x}"
    trace_id, flags = f"{getrandbits(128) or 1:032x}", "00"
    if traceparent is not None and (match := _TRACEPARENT.fullmatch(traceparent)):
        trace_id, flags = match[1].decode(), match[2].decode()
    return Trace(trace_id, span_id, flags, f"00-{trace_id}-{span_id}-{flags}".encode())


def request_id(offered: bytes | None) -> bytes:
    """The caller's `x-request-id` when it is harmless (128 characters of [A-Za-z0-9._:-]), else a new one."""
    if offered is not None and _REQUEST_ID.fullmatch(offered):
        return offered
    return b"req-%032x" % getrandbits(128)
