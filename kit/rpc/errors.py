"""The one tree of errors, and their way into a gRPC status and back; it knows no service.

    Fault                 an error that a caller may read; anything else is a bug
    ├── Invalid           INVALID_ARGUMENT     the request is wrong, whatever the state
    ├── NotFound          NOT_FOUND            no such resource, or none the caller may know of
    ├── AlreadyExists     ALREADY_EXISTS       a resource of that name is there
    ├── StateConflict     FAILED_PRECONDITION  the state does not allow it
    ├── Stale             ABORTED              read again, then repeat
    ├── Exhausted         RESOURCE_EXHAUSTED   a store or a limit is full
    ├── Unavailable       UNAVAILABLE          a peer does not answer; repeat later
    ├── Denied            PERMISSION_DENIED    known, but not allowed
    ├── Unauthenticated   UNAUTHENTICATED      not known
    ├── Corrupt           DATA_LOSS            stored bytes are not what they were
    ├── Unimplemented     UNIMPLEMENTED        not served here
    └── Internal          INTERNAL             a bug; the cause is in the log only

Services subclass a kind, carry their data and pass one sentence that names the thing and the fix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import grpc

from sluice.errors import v1 as errors

DOMAIN = "sluice"
Reason = int


class Fault(Exception):
    """An error that a caller may read; ``message`` is one sentence that names the thing and the fix."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    default_reason: ClassVar[Reason] = errors.ERROR_REASON_INTERNAL

    def __init__(
        self,
        message: str,
        *,
        reason: Reason = errors.ERROR_REASON_UNSPECIFIED,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[tuple[str, str]] = (),
        resource: tuple[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Takes (field, description) pairs as violations and (type, name) as resource."""
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})
        self.violations = list(violations)
        self.resource = resource
        self.retry_after_s = retry_after_s

    @property
    def reason_name(self) -> str:
        """The reason as it stands in ErrorInfo, such as ``NOT_FOUND``."""
        return errors.ErrorReason.Name(self.reason).removeprefix("ERROR_REASON_")


class Invalid(Fault):
    """The request is wrong, whatever the state."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = errors.ERROR_REASON_INVALID_FIELD


class NotFound(Fault):
    """No such resource, or none that the caller may know of."""

    code = grpc.StatusCode.NOT_FOUND
    default_reason = errors.ERROR_REASON_NOT_FOUND


class AlreadyExists(Fault):
    """A resource of that name is there."""

    code = grpc.StatusCode.ALREADY_EXISTS
    default_reason = errors.ERROR_REASON_ALREADY_EXISTS


class StateConflict(Fault):
    """The state of the resource does not allow the call."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = errors.ERROR_REASON_ILLEGAL_TRANSITION


class Stale(Fault):
    """The caller saw an older state; read again, then repeat."""

    code = grpc.StatusCode.ABORTED
    default_reason = errors.ERROR_REASON_STALE_ETAG


class Exhausted(Fault):
    """A store or a limit is full."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    default_reason = errors.ERROR_REASON_STORAGE_FULL


class Unavailable(Fault):
    """Something that is needed does not answer; the same call may work later."""

    code = grpc.StatusCode.UNAVAILABLE
    default_reason = errors.ERROR_REASON_SERVICE_UNAVAILABLE


class Denied(Fault):
    """The caller is known and may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    default_reason = errors.ERROR_REASON_ROLE_REQUIRED


class Unauthenticated(Fault):
    """The caller is not known."""

    code = grpc.StatusCode.UNAUTHENTICATED
    default_reason = errors.ERROR_REASON_INVALID_CREDENTIALS


class Corrupt(Fault):
    """Stored bytes are not what they were."""

    code = grpc.StatusCode.DATA_LOSS
    default_reason = errors.ERROR_REASON_CORRUPT_BLOB


class Unimplemented(Fault):
    """The rpc is not served here."""

    code = grpc.StatusCode.UNIMPLEMENTED
    default_reason = errors.ERROR_REASON_UNKNOWN_METHOD


class Internal(Fault):
    """A bug of the suite; the message carries a trace id and never the cause."""


KINDS: tuple[type[Fault], ...] = (
    Invalid, NotFound, AlreadyExists, StateConflict, Stale, Exhausted,
    Unavailable, Denied, Unauthenticated, Corrupt, Unimplemented, Internal,
)  # fmt: skip


def to_status(fault: Fault) -> Any:
    """Renders a fault as a ``google.rpc.Status`` with ErrorInfo and the other details it has data for."""
    from kit.rpc.status import render

    return render(fault)


def from_rpc_error(error: grpc.RpcError, peer: str = "the service") -> Fault:
    """Reads the fault back that ``peer`` sent; one that did not answer gives an Unavailable that names it."""
    from kit.rpc.status import read

    return read(error, peer)


def from_driver_error(error: BaseException) -> Fault | None:
    """Maps what a driver says about a full disk or an oversized message; None when it is no such thing."""
    from kit.rpc.status import driver_fault

    return driver_fault(error)
