"""Who is calling and what: the present rpc as code below the servicer sees it; it decides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from kit import telemetry
from kit.auth.principal import Principal


@dataclass(frozen=True, slots=True)
class Call:
    """One rpc, or work that the service does of its own accord (``method`` is then empty)."""

    principal: Principal
    method: str = ""
    traceparent: str = ""


_present: ContextVar[Call | None] = ContextVar("sluice_call", default=None)


def system_call(service: str) -> Call:
    """The call in whose name a service acts by itself: principal ``services/<service>``."""
    principal = Principal(name=f"services/{service}", bindings=frozenset(), service=service)
    return Call(principal, traceparent=telemetry.current_traceparent())


def current_call() -> Call:
    """The present rpc; outside one what ``acting`` set, else a system call of the process."""
    return _present.get() or system_call(telemetry.service_name() or "unnamed")


def enter(call: Call) -> None:
    """Makes ``call`` the present one for the rest of this task; the auth interceptor does so for each rpc."""
    _present.set(call)


def caller_of(method: str) -> str:
    """The name of the principal that called ``method`` in this task; empty when it was never found out."""
    call = _present.get()
    return call.principal.name if call and call.method == method else ""


@contextmanager
def acting(call: Call) -> Iterator[Call]:
    """Runs a block, and the tasks it starts, as ``call``: ``with acting(system_call("trainer")):``."""
    before = _present.get()
    _present.set(call)
    try:
        yield call
    finally:
        _present.set(before)  # not reset(token): an async fixture or generator may be closed in another context
