"""The one list of interceptors that every rpc passes, outermost first; it knows no service."""

from __future__ import annotations

import grpc

from kit.rpc.interceptors.access_log import AccessLog
from kit.rpc.interceptors.auth import Auth, Authenticate, Authorize, HasProject, Refused
from kit.rpc.interceptors.encoding import Encoding
from kit.rpc.interceptors.faults import Faults
from kit.rpc.interceptors.telemetry import Telemetry
from kit.rpc.interceptors.validation import Validation


def interceptors(
    authenticate: Authenticate,
    authorize: Authorize,
    has_project: HasProject | None = None,
    refused: Refused | None = None,
) -> list[grpc.aio.ServerInterceptor]:
    """The interceptors of a service, outermost first.

    ``authenticate`` takes the metadata pairs of a call and gives its principal or raises Unauthenticated;
    ``authorize`` takes principal, Access option and project (`projects/p`, or empty) and raises Denied;
    ``has_project`` says whether a project exists (without it, all do); ``refused`` is told the messages that
    ``authorize`` denies.
    """
    return [
        Telemetry(),
        AccessLog(),
        Auth(authenticate, authorize, has_project, refused),
        Faults(),
        Validation(),
        Encoding(),
    ]
