"""Traces, metrics and logs of a process; it sees names and durations, never content or secrets.

Nothing happens at import: ``configure`` starts it, ``Telemetry.shutdown`` ends it. Before that, spans and
figures cost nothing and go nowhere, and log records go where Python's logging sends them.
"""

from kit.telemetry.logs import Log, get_log
from kit.telemetry.metrics import count, observe, render_metrics, set_gauge
from kit.telemetry.setup import Telemetry, configure, service_name
from kit.telemetry.traces import (
    begin_span,
    current_trace_id,
    current_traceparent,
    span,
    untraced,
    with_traceparent,
)

__all__ = [
    "Log",
    "Telemetry",
    "begin_span",
    "configure",
    "count",
    "current_trace_id",
    "current_traceparent",
    "get_log",
    "observe",
    "render_metrics",
    "service_name",
    "set_gauge",
    "span",
    "untraced",
    "with_traceparent",
]
