"""Tells the trainer how the attempt goes, and learns what to do; it repeats itself until it is heard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from kit.rpc.errors import Exhausted, Fault, Invalid, from_rpc_error
from kit.telemetry import get_log
from services.trainer.agent.results import Ending, failed
from sluice.errors import v1 as errors
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

log = get_log(__name__)
TIMEOUT_S = 10.0
GONE = (errors.ERROR_REASON_STALE_EPOCH, errors.ERROR_REASON_NOT_FOUND)


class Superseded(Exception):
    """The attempt is not the job's any more; its work is worth nothing."""


@dataclass(frozen=True)
class Pace:
    """How often things are done, in seconds."""

    #: Between reports while things change. Each wakes every service, on cores that the recipe wants for itself.
    quick_s: float = 2.0
    #: Between reports while nothing does.
    slow_s: float = 5.0
    #: Between looks at the recipe's progress.
    look_s: float = 0.5
    #: Between the request to cancel and the recipe's end by force.
    cancel_s: float = 30.0
    #: The longest pause between tries to reach the trainer.
    away_s: float = 5.0


class Reporter:
    """What is to be said stands in ``said``; whoever changes it calls ``news``."""

    def __init__(
        self,
        attempts: trainer.AttemptServiceAsyncStub,
        job: str,
        epoch: int,
        obey: Callable[[trainer.AttemptCommand], None],
        pace: Pace,
    ) -> None:
        """``obey`` is called with every command that comes, repeats included."""
        self.said = trainer.ReportAttemptRequest(training_job=job, epoch=epoch, state=types.JOB_STATE_PREPARING)
        self._attempts = attempts
        self._obey = obey
        self._pace = pace
        self._news = asyncio.Event()

    def news(self) -> None:
        """Has a report sent soon."""
        self._news.set()

    def end(self, ending: Ending) -> None:
        """Has the last report sent."""
        self.said.outcome = ending.outcome
        if ending.failure is not None:
            self.said.failure.CopyFrom(ending.failure)
        if ending.result is not None:
            self.said.result.CopyFrom(ending.result)
        self.news()

    async def run(self) -> None:
        """Reports until the last report was acknowledged. Raises Superseded."""
        pause_s = 0.1
        while True:
            self._news.clear()
            try:
                command = await self._send()
            except Fault as fault:
                self._put_off(fault)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, self._pace.away_s)
                continue
            if command is None:
                return
            pause_s = 0.1
            self._obey(command)
            await self._until_next()

    async def _send(self) -> trainer.AttemptCommand | None:
        """The command that came back; None after the last report."""
        sent = trainer.ReportAttemptRequest()
        sent.CopyFrom(self.said)
        try:
            answer = await self._attempts.ReportAttempt(sent, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise from_rpc_error(error, "the trainer") from error
        return None if sent.outcome else answer.command

    def _put_off(self, fault: Fault) -> None:
        if fault.reason in GONE:
            raise Superseded(fault.message)
        log.warning("report_refused", reason=fault.reason_name, message=fault.message)
        if isinstance(fault, Invalid | Exhausted) and self.said.HasField("result"):
            # It would be refused for ever, and the job would never end.
            self.said.ClearField("result")
            self.end(failed(fault.reason, f"the trainer refused the result: {fault.message}"))

    async def _until_next(self) -> None:
        """At once for the last report, after ``quick_s`` for other news, after ``slow_s`` in any case."""
        loop = asyncio.get_running_loop()
        earliest, latest = loop.time() + self._pace.quick_s, loop.time() + self._pace.slow_s
        while (left_s := latest - loop.time()) > 0:
            try:
                await asyncio.wait_for(self._news.wait(), left_s)
            except TimeoutError:
                return
            if self.said.outcome:
                return
            self._news.clear()
            latest = max(earliest, loop.time())
