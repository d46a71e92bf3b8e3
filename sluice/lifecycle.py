"""The life cycles of the suite as tables, one per entity; ``docs/lifecycle.md`` shows the same tables to people.

Pure: no clock, no I/O. Services ask ``can(entity, old, new)``; a test holds the tables, the page and the contract
together.
"""

from __future__ import annotations

from collections.abc import Mapping

from sluice.dataset import v1 as dataset
from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry
from sluice.types import v1 as types

Table = Mapping[int, frozenset[int]]


def _table(**rows: str) -> Mapping[str, frozenset[str]]:
    return {state: frozenset(following.split()) for state, following in rows.items()}


def _resolve(enum: object, prefix: str, rows: Mapping[str, frozenset[str]]) -> Table:
    value = enum.Value  # type: ignore[attr-defined]
    return {value(prefix + old): frozenset(value(prefix + new) for new in following) for old, following in rows.items()}


#: Training, evaluation and export jobs share one machine.
JOB = _resolve(
    types.JobState,
    "JOB_STATE_",
    _table(
        CREATED="VALIDATING CANCELLED",
        VALIDATING="QUEUED FAILED CANCELLING CANCELLED",
        QUEUED="PREPARING CANCELLED EXPIRED FAILED",
        PREPARING="RUNNING QUEUED CANCELLING SUCCEEDED FAILED",
        RUNNING="PAUSING QUEUED CANCELLING SUCCEEDED FAILED",
        PAUSING="PAUSED QUEUED CANCELLING SUCCEEDED FAILED",
        PAUSED="QUEUED CANCELLED EXPIRED",
        CANCELLING="CANCELLED SUCCEEDED FAILED",
        SUCCEEDED="",
        FAILED="QUEUED",
        CANCELLED="",
        EXPIRED="",
    ),
)

UPLOAD = _resolve(
    dataset.UploadState,
    "UPLOAD_STATE_",
    _table(OPEN="VALIDATING EXPIRED", VALIDATING="COMMITTED FAILED", COMMITTED="", FAILED="", EXPIRED=""),
)

ERASURE = _resolve(
    dataset.ErasureState,
    "ERASURE_STATE_",
    _table(RUNNING="SHREDDING DONE FAILED", SHREDDING="DONE", DONE="", FAILED=""),
)

MODEL_VERSION = _resolve(
    registry.ModelVersionState,
    "MODEL_VERSION_STATE_",
    _table(
        PENDING="AWAITING_APPROVAL APPROVED REJECTED INCONCLUSIVE REVOKED",
        AWAITING_APPROVAL="APPROVED REJECTED INCONCLUSIVE REVOKED",
        APPROVED="REVOKED",
        REJECTED="AWAITING_APPROVAL APPROVED INCONCLUSIVE REVOKED",
        INCONCLUSIVE="AWAITING_APPROVAL APPROVED REJECTED REVOKED",
        REVOKED="",
    ),
)

TASK_TYPE = _resolve(
    registry.TaskTypeState,
    "TASK_TYPE_STATE_",
    _table(PROPOSED="APPROVED DECLINED", APPROVED="RETIRED", DECLINED="PROPOSED", RETIRED=""),
)

ROLLOUT = _resolve(
    gateway.RolloutState,
    "ROLLOUT_STATE_",
    _table(
        PENDING="PREPARING FAILED",
        PREPARING="PROGRESSING PROMOTED FAILED",
        PROGRESSING="PROMOTED ROLLED_BACK",
        PROMOTED="ROLLED_BACK",
        ROLLED_BACK="",
        FAILED="",
    ),
)

DEPLOYMENT = _resolve(
    gateway.DeploymentState,
    "DEPLOYMENT_STATE_",
    _table(
        PENDING="LOADING RELEASED",
        LOADING="READY FAILED RELEASED",
        READY="LOADING RELEASED",
        FAILED="LOADING RELEASED",
        RELEASED="",
    ),
)

CANDIDATE_ROUTE = _resolve(
    gateway.CandidateRouteState,
    "CANDIDATE_ROUTE_STATE_",
    _table(LOADING="READY FAILED RELEASED", READY="LOADING RELEASED", FAILED="RELEASED", RELEASED=""),
)


def can(table: Table, old: int, new: int) -> bool:
    """Whether ``table`` lets an entity go from ``old`` to ``new``."""
    return new in table[old]


def is_over(table: Table, state: int) -> bool:
    """Whether nothing follows ``state`` without somebody asking for it."""
    return not table[state] or (table is JOB and state == types.JOB_STATE_FAILED)
