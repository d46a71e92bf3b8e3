"""Sends the outbox to the broker: in order, acknowledged, then marked; it knows no event and no consumer."""

import asyncio
import random
from collections.abc import Sequence
from datetime import timedelta

import nats.js.errors
from nats.js.api import Header
from sqlalchemy import update
from sqlmodel import col, select

from kit.bus.cloud_events import encode
from kit.bus.connection import BROKER_ERRORS, Bus
from kit.bus.outbox import to_event
from kit.rpc.errors import Fault
from kit.store import BookmarkRow, Database, Leadership, OutboxRow, Unit, failpoint, leading
from kit.telemetry import count, get_log, set_gauge

log = get_log("sluice.bus")
BATCH = 100
STREAM = "bus.stream"  # the bookmark that says when the stream was made to which the marks refer
# JetStream's codes for: insufficient resources, no storage, maximum bytes, maximum messages.
FULL = {10023, 10047, 10077, 10109, 10122}


class Relay:
    """One per service; where a service has replicas, an advisory lock in PostgreSQL lets one at a time send.

    At least once: an event may be sent again after a crash between the broker's acknowledgement and the mark, and
    all of the retention window are sent again when the broker lost its stream.
    """

    def __init__(self, database: Database, bus: Bus, *, poll_s: float = 1.0) -> None:
        """``poll_s`` bounds the delay of events committed by another process."""
        self.database = database
        self.bus = bus
        self.poll_s = poll_s
        self._changed = database.changed_in(OutboxRow.__tablename__)
        self._full = False
        self._delay_s = 0.1

    async def run(self) -> None:
        """Sends until cancelled; broker and database may come and go."""
        while True:
            try:
                await self.bus.wait_ready()
                async with leading(self.database, "relay", poll_s=self.poll_s) as leadership:
                    generation = self.bus.generation
                    await self._check_stream()
                    await self._send_while(generation, leadership)
            except (Fault, *BROKER_ERRORS) as error:
                self._report(error)
            await asyncio.sleep(self._delay_s * random.uniform(0.5, 1.0))
            self._delay_s = min(self._delay_s * 2, 5.0)

    async def _send_while(self, generation: int, leadership: Leadership) -> None:
        """Sends what there is and what comes, until the connection is another one."""
        while self.bus.ready and self.bus.generation == generation:
            seen = self._changed.count
            await leadership.check()
            async with self.database.read() as session:
                query = select(OutboxRow).where(col(OutboxRow.published_at).is_(None))
                rows = (await session.exec(query.order_by(col(OutboxRow.sequence)).limit(BATCH))).all()
            if rows:
                await self._send(rows)
            else:
                await self._changed.wait(seen, self.poll_s)

    async def _send(self, rows: Sequence[OutboxRow]) -> None:
        """Publishes a batch pipelined; marks the part from its start that was acknowledged without a gap."""
        failpoint("before_publish")
        sent = await asyncio.gather(*(self._publish(row) for row in rows), return_exceptions=True)
        failpoint("after_publish")
        failures = [index for index, result in enumerate(sent) if isinstance(result, BaseException)]
        stored = failures[0] if failures else len(rows)
        if stored:
            await self._mark([row.id for row in rows[:stored]])
            count("sluice_events_published_total", stored, service=self.database.service)
            self._delay_s = 0.1
        if failures:
            failure = sent[stored]
            assert isinstance(failure, BaseException)
            raise failure
        self._note_full(False)

    async def _publish(self, row: OutboxRow) -> None:
        payload = encode(to_event(row, self.database.service))
        await self.bus.jetstream.publish(row.type, payload, timeout=10.0, headers={Header.MSG_ID.value: row.id})

    async def _mark(self, ids: list[str]) -> None:
        async def mark(unit: Unit) -> None:
            change = update(OutboxRow).where(col(OutboxRow.id).in_(ids))
            await unit.session.exec(change.values(published_at=unit.now))

        await self.database.transact(mark)
        failpoint("after_mark")

    async def _check_stream(self) -> None:
        """Takes the marks back, in the retention window, when the stream is not the one they were made for."""
        info = await self.bus.provision_stream()
        made = info.created.isoformat() if info.created else ""

        async def compare(unit: Unit) -> int:
            bookmark = await unit.session.get(BookmarkRow, STREAM)
            if bookmark is not None and bookmark.value == made:
                return 0
            since = unit.now - timedelta(seconds=self.bus.retention.max_age_s)
            lost = update(OutboxRow).where(col(OutboxRow.published_at).is_not(None), col(OutboxRow.time) >= since)
            changed = await unit.session.exec(lost.values(published_at=None))
            await unit.session.merge(BookmarkRow(key=STREAM, value=made))
            return int(changed.rowcount)

        again = await self.database.transact(compare)
        if again:
            log.warning("the broker lost its stream; sending again", service=self.database.service, events=again)

    def _report(self, error: BaseException) -> None:
        full = isinstance(error, nats.js.errors.APIError) and error.err_code in FULL
        if full:
            self._note_full(True)
        else:
            log.info("events wait in the outbox", service=self.database.service, cause=type(error).__name__)

    def _note_full(self, full: bool) -> None:
        if full and not self._full:
            log.error("the event store is full; events wait in the outbox", service=self.database.service)
        elif self._full and not full:
            log.info("the event store has room again", service=self.database.service)
        if full != self._full:
            set_gauge("sluice_event_store_full", float(full), service=self.database.service)
        self._full = full
