"""Faults, their way into a status and back."""

from __future__ import annotations

import errno
import sqlite3
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from kit.rpc import errors
from kit.rpc.status import parse, read
from sluice.errors import v1 as reasons

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


@pytest.mark.parametrize("kind", errors.KINDS)
@given(
    message=text,
    reason=st.sampled_from([value for value in reasons.ErrorReason.values() if value]),
    metadata=st.dictionaries(text, text, max_size=3),
    violations=st.lists(st.tuples(text, text), min_size=1, max_size=3),
    resource=st.none() | st.tuples(text, text),
    retry_after_s=st.none() | st.integers(0, 10**6).map(lambda ms: ms / 1000),
)
def test_every_kind_survives_the_round_trip(kind: type[errors.Fault], message: str, **data: Any) -> None:
    fault = kind(message, **data)
    back = parse(errors.to_status(fault))
    assert type(back) is kind
    assert vars(back) == vars(fault)


@pytest.mark.parametrize("kind", errors.KINDS)
def test_each_kind_has_a_code_of_its_own_and_a_reason_that_states_it(kind: type[errors.Fault]) -> None:
    status = errors.to_status(kind("x"))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "sluice" and info.reason == kind("x").reason_name and "ERROR_REASON" not in info.reason
    assert code_pb2.Code.Name(status.code) == kind.code.name
    assert len({each.code for each in errors.KINDS}) == len(errors.KINDS)


def test_a_state_conflict_names_its_precondition() -> None:
    status = errors.to_status(
        errors.StateConflict("job is over", resource=("TrainingJob", "projects/p/trainingJobs/j"))
    )
    failure = error_details_pb2.PreconditionFailure()
    assert any(detail.Unpack(failure) for detail in status.details)
    (violation,) = failure.violations
    assert (violation.type, violation.subject) == ("ILLEGAL_TRANSITION", "projects/p/trainingJobs/j")


def test_details_and_reasons_of_others_are_left_out() -> None:
    status = errors.to_status(errors.NotFound("x"))
    status.details.add().CopyFrom(AnyMessage(type_url="example.com/other", value=b"?"))
    assert isinstance(parse(status), errors.NotFound)
    foreign = errors.to_status(errors.Stale("x"))
    foreign.details[0].Pack(error_details_pb2.ErrorInfo(reason="FROM_THE_FUTURE", domain="sluice"))
    assert parse(foreign).reason == errors.Stale.default_reason


class Refusal(grpc.RpcError):
    """An RpcError that says no more than code and text."""

    def __init__(self, code: grpc.StatusCode, text: str = "") -> None:
        self._code, self._text = code, text

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._text

    def trailing_metadata(self) -> tuple[()]:
        return ()


@pytest.mark.parametrize(
    ("refusal", "kind", "words"),
    [
        (
            Refusal(grpc.StatusCode.UNAVAILABLE, "tcp handshaker shutdown"),
            errors.Unavailable,
            "does not answer",
        ),
        (Refusal(grpc.StatusCode.DEADLINE_EXCEEDED), errors.Unavailable, "in time"),
        (Refusal(grpc.StatusCode.NOT_FOUND, "gone"), errors.NotFound, "gone"),
        (Refusal(grpc.StatusCode.OUT_OF_RANGE), errors.Internal, "OUT_OF_RANGE"),
    ],
)
def test_a_refusal_without_details_gives_one_clear_sentence(
    refusal: grpc.RpcError, kind: type[errors.Fault], words: str
) -> None:
    fault = read(refusal, "the dataset service")
    assert type(fault) is kind and words in fault.message
    assert "tcp" not in fault.message


def chained(inner: Exception) -> Exception:
    outer = RuntimeError("flush failed")
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        sqlite3.OperationalError("database or disk is full"),
        chained(sqlite3.OperationalError("database or disk is full")),
    ],
)
def test_full_stores_are_known(error: Exception) -> None:
    fault = errors.from_driver_error(error)
    assert isinstance(fault, errors.Exhausted) and fault.reason_name == "STORAGE_FULL"


def test_other_errors_of_drivers_are_not() -> None:
    assert errors.from_driver_error(OSError(errno.EACCES, "denied")) is None
    assert errors.from_driver_error(KeyError("x")) is None
