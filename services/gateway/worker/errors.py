"""The worker's error tree and its OpenAI bodies; knows no HTTP library and no cause that a caller may not
read.

GatewayError
├── InvalidRequest 400 ── AmbiguousModel 400, WrongInterface 400, UnknownPath 404, MethodNotAllowed 405,
│                         BodyTimeout 408, TooLarge 413
├── Unauthenticated 401
├── Denied 403
├── ModelNotFound 404
├── NotReady 503 (no snapshot yet, or no version of the endpoint serves)
├── Internal 500
└── EngineFault
    └── Unreachable 502 ── Ejected 503; Broken 502 ── TooLong 502; TimedOut 504; Busy 429; Refused 4xx or 5xx;
        Withdrawn 503; ClientGone 499
"""

from __future__ import annotations

from typing import ClassVar

import msgspec


class GatewayError(Exception):
    """A refusal with a sentence for the caller. `kind` is its class in the figures."""

    status: int = 500
    type: ClassVar[str] = "server_error"
    code: str | None = None
    kind: str = "internal"
    retry_after_s: int | None = None
    headers: ClassVar[tuple[tuple[bytes, bytes], ...]] = ()

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def body(self) -> bytes:
        """The OpenAI error body, JSON."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


class InvalidRequest(GatewayError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_request"
    kind = "invalid"


class AmbiguousModel(InvalidRequest):
    code = "model_ambiguous"

    def __init__(self, model: str, endpoint: str) -> None:
        super().__init__(
            f"Several of your projects have a model `{model[:200]}`; ask for one by its full name, such as "
            f"`{endpoint}`.",
            param="model",
        )


class WrongInterface(InvalidRequest):
    code = "wrong_interface"

    def __init__(self, model: str, interface: str, path: str) -> None:
        super().__init__(f"`{model[:200]}` serves {interface}; ask it at {path}.", param="model")


class UnknownPath(InvalidRequest):
    status = 404
    code = "unknown_url"


class MethodNotAllowed(InvalidRequest):
    status = 405
    code = "method_not_allowed"


class BodyTimeout(InvalidRequest):
    status = 408
    code = "request_timeout"
    headers = ((b"connection", b"close"),)


class TooLarge(InvalidRequest):
    status = 413
    code = "request_too_large"
    headers = ((b"connection", b"close"),)


class Unauthenticated(GatewayError):
    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"
    kind = "unauthenticated"
    headers = ((b"www-authenticate", b"Bearer"),)


class Denied(GatewayError):
    status = 403
    type = "permission_error"
    code = "permission_denied"
    kind = "denied"


class ModelNotFound(GatewayError):
    status = 404
    type = "invalid_request_error"
    code = "model_not_found"
    kind = "not_found"

    def __init__(self, model: str) -> None:
        super().__init__(
            f"The model `{model[:200]}` does not exist or is not yours to use; GET /v1/models lists yours.",
            param="model",
        )


class NotReady(GatewayError):
    status = 503
    code = "not_ready"
    kind = "not_ready"
    retry_after_s = 1


class Internal(GatewayError):
    code = "internal_error"


class EngineFault(GatewayError):
    """Something between the worker and an engine."""

    code = "engine_error"
    kind = "engine_error"


class Unreachable(EngineFault):
    """No connection could be made: the engine saw nothing of the request."""

    status = 502
    code = "engine_unreachable"
    kind = "unreachable"


class Ejected(Unreachable):
    """Not even tried: the engine failed several times in a row moments ago."""

    status = 503
    retry_after_s = 2


class Broken(EngineFault):
    """The engine's answer ended early or made no sense."""

    status = 502
    code = "engine_broken"
    kind = "broken"


class TooLong(Broken):
    """The engine's answer is longer than a worker holds."""


class TimedOut(EngineFault):
    status = 504
    code = "engine_timeout"
    kind = "timeout"


class Busy(EngineFault):
    status = 429
    type = "rate_limit_error"
    code = "engine_busy"
    kind = "overload"
    retry_after_s = 1


class Refused(EngineFault):
    """The engine answered with an error of its own; `status` is what the client sees."""

    def __init__(self, message: str, *, status: int, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.code = "engine_error" if status >= 500 else "engine_refused"
        self.kind = "engine_error" if status >= 500 else "refused"  # below 500 the request is to blame


class Withdrawn(EngineFault):
    """The version may not serve any more: it was revoked, or this request had its time to end."""

    status = 503
    code = "version_withdrawn"
    kind = "withdrawn"
    retry_after_s = 1


class ClientGone(EngineFault):
    """The caller hung up; nobody reads the answer."""

    status = 499
    kind = "client_gone"
