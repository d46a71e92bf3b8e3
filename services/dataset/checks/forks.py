"""The nursery and its processes as the service sees them; what they do is not known here."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from io import FileIO

#: What is said at its socket: a kind, the number that a process was given here, and its id or its code.
MESSAGE = struct.Struct(">cQq")
FORK, KILL, FORKED, ENDED = b"F", b"K", b"P", b"X"


class Forked:
    """A process of the nursery, with what `subprocess.Popen` has of it: pipes, `poll`, `kill`, `wait`."""

    def __init__(self, nursery: Nursery, number: int, stdin: FileIO, stdout: FileIO) -> None:
        self.stdin, self.stdout = stdin, stdout
        self.returncode: int | None = None
        self._nursery, self._number = nursery, number
        self._pid = 0
        self._begun, self._over = threading.Event(), threading.Event()

    @property
    def pid(self) -> int:
        """Its id, as soon as it is known; 0 for one that was never forked."""
        self._begun.wait()
        return self._pid

    def poll(self) -> int | None:
        """The code it ended with; None while it lives, as far as we know."""
        return self.returncode

    def kill(self) -> None:
        """Ends it, unless it has ended: it is the nursery that knows."""
        self._nursery.kill(self._number)

    def wait(self) -> int:
        """Blocks until it has ended; returns its code."""
        self._over.wait()
        code = self.returncode
        assert code is not None
        return code

    def begin(self, pid: int) -> None:
        """Puts down its id."""
        self._pid = pid
        self._begun.set()

    def end(self, code: int) -> None:
        """Puts down how it ended."""
        self.returncode = code
        self._begun.set()
        self._over.set()


class Nursery:
    """A nursery and what it has forked. What it has to say a thread listens for."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.dataset.checks.nursery"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=dict(environ),
            )
        self._forked: dict[int, Forked] = {}
        self._count = 0
        self._lives = True
        # A daemon: else a service that fails would wait for it.
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    @property
    def pid(self) -> int:
        """Its own id."""
        pid: int = self._process.pid
        return pid

    @property
    def lives(self) -> bool:
        """Whether it can fork."""
        return self._lives

    @property
    def idle(self) -> bool:
        """Whether nothing that it forked is at work."""
        return not self._forked

    def fork(self) -> Forked:
        """A new process, at once where the nursery has loaded what it needs, else as soon as it has."""
        incoming, to_it = os.pipe()
        from_it, outgoing = os.pipe()
        self._count += 1
        forked = Forked(self, self._count, FileIO(to_it, "wb"), FileIO(from_it, "rb"))
        self._forked[self._count] = forked
        try:
            socket.send_fds(self._control, [MESSAGE.pack(FORK, self._count, 0)], [incoming, outgoing])
        except OSError:  # it is gone
            self._end(self._count, 1)
        finally:
            os.close(incoming)
            os.close(outgoing)
        return forked

    def kill(self, number: int) -> None:
        """Ends one of its processes, unless it has ended."""
        with suppress(OSError):  # gone, and its processes with it
            self._control.send(MESSAGE.pack(KILL, number, 0))

    def close(self) -> None:
        """Ends it and its processes; blocks until it is gone."""
        self._process.kill()
        self._process.wait()
        self._listening.join()
        self._control.close()

    def _listen(self) -> None:
        with suppress(OSError):  # it is gone, as when nothing comes
            while message := self._control.recv(MESSAGE.size):
                kind, number, told = MESSAGE.unpack(message)
                if kind == FORKED:
                    self._forked[number].begin(told)
                elif kind == ENDED:
                    self._forked.pop(number).end(told)
        code = self._process.wait()  # its processes end with it, and of the same cause
        self._lives = False  # before it is told of any: whoever then wants another must not ask here
        for number in list(self._forked):
            self._end(number, code)

    def _end(self, number: int, code: int) -> None:
        if forked := self._forked.pop(number, None):
            forked.end(code)
