"""Rows of the outbox as events of the contract."""

from kit.store import OutboxRow
from sluice.events import v1 as events


def to_event(row: OutboxRow, service: str) -> events.Event:
    """The event in a row of the service's outbox."""
    event = events.Event(
        id=row.id,
        type=row.type,
        source=service,
        subject=row.subject,
        traceparent=row.traceparent,
        principal=row.principal,
        data_json=row.data_json,
        sequence=row.sequence or 0,
    )
    event.time.FromDatetime(row.time)
    return event
