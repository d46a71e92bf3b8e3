"""Numbers, times and states as people read them. Pure; the present time is an argument."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))


def state(enum: Any, value: int, prefix: str) -> str:
    """`RUNNING` of JOB_STATE_RUNNING."""
    return str(enum.Name(value)).removeprefix(prefix)


def job_state(value: int) -> str:
    """The state of a training job or an evaluation."""
    from sluice.types import v1 as types

    return state(types.JobState, value, "JOB_STATE_")


def version_state(value: int) -> str:
    """The state of a model version."""
    from sluice.registry import v1 as registry

    return state(registry.ModelVersionState, value, "MODEL_VERSION_STATE_")


def task_type_state(value: int) -> str:
    """The state of a task type."""
    from sluice.registry import v1 as registry

    return state(registry.TaskTypeState, value, "TASK_TYPE_STATE_")


def rollout_state(value: int) -> str:
    """The state of a rollout."""
    from sluice.gateway import v1 as gateway

    return state(gateway.RolloutState, value, "ROLLOUT_STATE_")


def deployment_state(value: int) -> str:
    """The state of a deployment."""
    from sluice.gateway import v1 as gateway

    return state(gateway.DeploymentState, value, "DEPLOYMENT_STATE_")


def verdict(value: int) -> str:
    """`PASS`, `FAIL`, `INCONCLUSIVE`; empty before the gate has spoken."""
    from sluice.registry import v1 as registry

    return state(registry.Verdict, value, "VERDICT_") if value else ""


def when(stamp: Timestamp, now: datetime | None = None) -> str:
    """`3 min ago`, roughly, and the date for what is older than a week; empty for an absent time."""
    if not stamp.seconds:
        return ""
    time = stamp.ToDatetime(UTC)
    age_s = ((now or datetime.now(UTC)) - time).total_seconds()
    if age_s > 7 * 86_400:
        return f"{time.astimezone():%Y-%m-%d}"
    if age_s < 1:
        return "just now"
    rough = next((f"{age_s // size:.0f} {unit}" for unit, size in UNITS if age_s >= size), f"{age_s:.0f} s")
    return f"{rough} ago"


def clock(stamp: Timestamp) -> str:
    """`14:03:07` in local time."""
    return f"{stamp.ToDatetime(UTC).astimezone():%H:%M:%S}" if stamp.seconds else ""


def duration(seconds: float) -> str:
    """`850 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    for (unit, size), (smaller, part) in zip(UNITS, (*UNITS[1:], ("s", 1)), strict=True):
        if seconds >= size:
            rest = int(seconds % size // part)
            return f"{int(seconds // size)} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds:.0f} s"


def between(start: Timestamp, end: Timestamp) -> str:
    """How long it took; empty while either end is open."""
    return duration((end.ToNanoseconds() - start.ToNanoseconds()) / 1e9) if start.seconds and end.seconds else ""


def size(count: float) -> str:
    """`1.4 MB`, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def digest(value: str) -> str:
    """The beginning of a digest, enough to compare by eye."""
    return value.removeprefix("sha256:")[:12]


def brief(name: str) -> str:
    """The id in a resource name, a UUID cut to its first 13 characters, which name the millisecond it was made."""
    from sluice.client import names

    if not name:
        return ""
    last = names.short(name)
    return last[:13] if names.is_uuid(last) else last


def seconds(text: str) -> float:
    """`90`, `15m`, `1h`, `7d` in seconds; raises Invalid for anything else."""
    import re

    from kit.rpc.errors import Invalid

    found = re.fullmatch(r"(\d+)(s|m|h|d)?", text.strip())
    if not found:
        raise Invalid(f"`{text}` is no length of time; write it like 90s, 15m, 1h or 7d")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400, None: 1}[found[2]]
