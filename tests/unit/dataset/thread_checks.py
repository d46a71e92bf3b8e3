"""The checking process as a thread: the same code and the same two pipes, without Arrow to be loaded each time."""

import asyncio
import os
import threading
from types import SimpleNamespace

from services.dataset import checks
from services.dataset.checks import process, wire
from services.dataset.checks.__main__ import WORK
from services.dataset.checks.child import Wire


class ThreadChecker(checks.Checker):
    """Waits for one task, which must be let come to its end: a thread cannot be killed."""

    def __init__(self) -> None:
        theirs, ours = os.pipe()
        self.incoming = os.fdopen(theirs, "rb", buffering=1 << 20)
        self.to_it = os.fdopen(ours, "wb", buffering=0)
        ours, theirs = os.pipe()
        self.outgoing = os.fdopen(theirs, "wb", buffering=1 << 20)
        self.from_it = os.fdopen(ours, "rb", buffering=0)
        self.process = SimpleNamespace(poll=lambda: None)
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self) -> None:
        wires = Wire(self.incoming, self.outgoing)
        task = wires.task()
        try:
            wires.send(wire.DONE, wire.encode(WORK[type(task)](task, wires)))
        except Exception as error:
            wires.send(wire.BROKE, wire.encode(wire.Broke(type(error).__name__, "", 0)))

    async def send(self, *contents: bytes) -> None:
        await asyncio.to_thread(process._write, self.to_it, contents)

    async def receive(self) -> tuple[bytes, bytes]:
        return await asyncio.to_thread(process._read_message, self.from_it)

    async def outgrow(self, most: int) -> None:
        await asyncio.Event().wait()

    async def end(self) -> int:
        await asyncio.to_thread(self.thread.join)
        for pipe in (self.incoming, self.to_it, self.outgoing, self.from_it):
            pipe.close()
        return 0


class ThreadSpare(checks.Spare):
    """Gives such threads."""

    def prepare(self) -> None:
        """A thread is ready soon enough."""

    def take(self) -> checks.Checker:
        return ThreadChecker()
