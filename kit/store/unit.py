"""One write transaction: its session, its time, and the events that commit with it; it knows no table of a service."""

import re
from datetime import datetime

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from sqlalchemy import insert, text
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.rpc.call import current_call
from kit.rpc.errors import Exhausted
from kit.rpc.names import uuid7
from kit.store.tables import OutboxRow
from kit.telemetry import current_traceparent
from sluice.errors import v1 as errors

MAX_EVENT_BYTES = 512 * 1024  # half of what the broker takes, so that a dead letter with its headers fits as well


def event_type(message: type[Message]) -> str:
    """`sluice.trainer.v1.training_job.succeeded` for the class TrainingJobSucceeded: the last word is the verb."""
    descriptor = message.DESCRIPTOR
    words = re.findall(r"[A-Z][a-z0-9]*", descriptor.name)
    if len(words) < 2:
        raise ValueError(f"`{descriptor.full_name}` is no event: name it noun and verb, such as DatasetCreated")
    noun = "_".join(word.lower() for word in words[:-1])
    return f"{descriptor.file.package}.{noun}.{words[-1].lower()}"


class Unit:
    """What ``Database.begin`` gives: all of it is committed together, or none."""

    def __init__(self, session: AsyncSession, now: datetime) -> None:
        """Takes the session of the open transaction and its time, aware and in UTC."""
        self.session = session
        self.now = now
        self._events: list[dict[str, object]] = []

    def emit(self, message: Message, subject: str) -> str:
        """Records an event about the resource named ``subject``, which commits with the unit; returns its id.

        Who caused it is the caller of the present rpc, else the service itself.
        Raises Exhausted (MESSAGE_TOO_LARGE) above 512 KiB of JSON.
        """
        data = MessageToJson(message, preserving_proto_field_name=True, indent=None)
        if len(data.encode()) > MAX_EVENT_BYTES:
            raise Exhausted(
                f"the event {message.DESCRIPTOR.name} about {subject} is larger than {MAX_EVENT_BYTES >> 10} KiB",
                reason=errors.ERROR_REASON_MESSAGE_TOO_LARGE,
            )
        event = {
            "id": uuid7(),
            "type": event_type(type(message)),
            "subject": subject,
            "time": self.now,
            "traceparent": current_traceparent(),
            "principal": current_call().principal.name,
            "data_json": data,
        }
        self._events.append(event)
        return str(event["id"])

    async def write_events(self) -> None:
        """Inserts the events; the database calls it last, right before the commit."""
        if not self._events:
            return
        if self.session.get_bind().dialect.name == "postgresql":
            # Numbers are given out here and become visible at commit. Without the lock a lower number could
            # appear after a higher one, and who follows the log by number would never see it.
            await self.session.exec(text("SELECT pg_advisory_xact_lock(hashtext('sluice.outbox'))"))  # type: ignore[call-overload]
        await self.session.flush()
        connection = await self.session.connection()
        await connection.execute(insert(OutboxRow), self._events)
        self._events = []
