"""A fault as ``google.rpc.Status`` and back; it decides no kind."""

from __future__ import annotations

import errno
import re

import grpc
from google.rpc import error_details_pb2 as details
from google.rpc import status_pb2
from grpc_status import rpc_status

from kit.rpc.errors import DOMAIN, KINDS, Exhausted, Fault, Internal, StateConflict, Unavailable
from sluice.errors import v1 as errors

KIND_OF_CODE: dict[int, type[Fault]] = {kind.code.value[0]: kind for kind in KINDS}
CODE_OF_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
REASONS = frozenset(errors.ErrorReason.keys())
TOO_LARGE = re.compile(r"message larger than max \((\d+) vs\. (\d+)\)", re.IGNORECASE)  # gRPC's own words
FULL_STORE_WORDS = ("database or disk is full", "No space left on device", "could not extend file")


def render(fault: Fault) -> status_pb2.Status:
    """Renders a fault with ErrorInfo and whichever other details it has data for."""
    status = status_pb2.Status(code=fault.code.value[0], message=fault.message)
    status.details.add().Pack(details.ErrorInfo(reason=fault.reason_name, domain=DOMAIN, metadata=fault.metadata))
    if isinstance(fault, StateConflict):
        failure = details.PreconditionFailure()
        whole = (fault.resource[1] if fault.resource else "", fault.message)
        for subject, description in fault.violations or [whole]:
            failure.violations.add(type=fault.reason_name, subject=subject, description=description)
        status.details.add().Pack(failure)
    elif fault.violations:
        request = details.BadRequest()
        for field, description in fault.violations:
            request.field_violations.add(field=field, description=description)
        status.details.add().Pack(request)
    if fault.resource:
        kind, name = fault.resource
        status.details.add().Pack(
            details.ResourceInfo(resource_type=kind, resource_name=name, description=fault.message)
        )
    if fault.retry_after_s is not None:
        retry = details.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(fault.retry_after_s * 1e9))
        status.details.add().Pack(retry)
    return status


def parse(status: status_pb2.Status) -> Fault:
    """Reads a fault out of a status; details of other domains are left out."""
    kind = KIND_OF_CODE.get(status.code, Internal)
    info, violations = details.ErrorInfo(), list[tuple[str, str]]()
    resource: tuple[str, str] | None = None
    retry_after_s: float | None = None
    bad, failure = details.BadRequest(), details.PreconditionFailure()
    about, retry = details.ResourceInfo(), details.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info):
            continue
        if detail.Unpack(bad):
            violations += [(found.field, found.description) for found in bad.field_violations]
        elif detail.Unpack(failure):
            violations += [(found.subject, found.description) for found in failure.violations]
        elif detail.Unpack(about):
            resource = (about.resource_type, about.resource_name)
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    name = f"ERROR_REASON_{info.reason}"
    known = info.domain == DOMAIN and name in REASONS
    return kind(
        status.message,
        reason=errors.ErrorReason.Value(name) if known else kind.default_reason,
        metadata=info.metadata,
        violations=violations,
        resource=resource,
        retry_after_s=retry_after_s,
    )


def read(error: grpc.RpcError, peer: str) -> Fault:
    """Reads the fault out of an RpcError; see ``errors.from_rpc_error``."""
    status = rpc_status.from_call(error)
    if status is not None:
        return parse(status)
    code, text = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(f"{peer} does not answer; check that it runs and that its address is right, then repeat")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable(f"{peer} did not answer in time; it may be busy or down: repeat, or allow more time")
    if sizes := TOO_LARGE.search(text):
        return too_large(*map(int, sizes.groups()))
    kind = KIND_OF_CODE.get(code.value[0], Internal)
    return kind(text or f"{peer} answered {code.name} without saying why")


def too_large(size_bytes: int, limit_bytes: int) -> Exhausted:
    """What a message above the limit of a channel gives."""
    return Exhausted(
        f"the message has {size_bytes} bytes and the limit is {limit_bytes}; send it in smaller pieces",
        reason=errors.ERROR_REASON_MESSAGE_TOO_LARGE,
        metadata={"size_bytes": str(size_bytes), "limit_bytes": str(limit_bytes)},
    )


def driver_fault(error: BaseException) -> Fault | None:
    """Looks along the chain of causes for a full disk, quota or database; a driver's words end here."""
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            return None
        full = isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or any(word in str(seen) for word in FULL_STORE_WORDS):
            return Exhausted("the disk of the service is full; free some space there, then repeat")
        seen = getattr(seen, "orig", None) or seen.__cause__ or seen.__context__
    return None
