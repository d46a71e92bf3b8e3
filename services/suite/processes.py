"""Starts processes by fork, keeps them running, and stops them in order; knows nothing of what they do.

The parent imports what the children share before it forks, so that they start at once and share its memory.
It never touches gRPC, threads or an event loop itself: those do not survive a fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from services.suite.logs import rotate

PR_SET_PDEATHSIG = 1
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
STEADY_S = 30.0
STOP_S = 20.0
LOGS_S = 5.0


@dataclass(frozen=True)
class Spec:
    """A process: what it runs, or what it becomes, and where its output goes."""

    name: str
    run: Callable[[], None]
    log: Path
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Running:
    """A process that was started."""

    spec: Spec
    pid: int
    since: float
    pause_s: float = FIRST_PAUSE_S


def spawn(spec: Spec) -> int:
    """Forks a process for ``spec`` and returns its id. It gets SIGTERM when its parent dies."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops us in order
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)
        output = os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(spec.variables)
        spec.run()
        status = 0
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else 1
        if isinstance(exit_.code, str):
            print(exit_.code, file=sys.stderr)  # noqa: T201
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class Supervisor:
    """Keeps every spec running until told to stop; a process that dies is started again, ever more slowly."""

    def __init__(self, specs: Sequence[Spec], changed: Callable[[Mapping[str, int]], None]) -> None:
        """``changed`` is told the process ids by name after every start, and again when it raised OSError."""
        self._specs = specs
        self._changed = changed
        self._untold = False
        self._running: dict[str, Running] = {}
        self._due: dict[str, tuple[float, Running]] = {}
        self._stopping = False
        self._logs_due = 0.0

    def start(self, spec: Spec, pause_s: float = FIRST_PAUSE_S) -> None:
        """Starts one process and keeps it running from now on."""
        self._running[spec.name] = Running(spec, spawn(spec), time.monotonic(), pause_s)
        self._tell()

    def _tell(self) -> None:
        """A full disk ends nothing that runs."""
        try:
            self._changed({name: process.pid for name, process in self._running.items()})
            self._untold = False
        except OSError as error:
            if not self._untold:
                print(f"the process ids cannot be written: {error.strerror}", file=sys.stderr)  # noqa: T201
            self._untold = True

    def start_all(self) -> None:
        """Starts every process that does not run yet."""
        for spec in self._specs:
            if spec.name not in self._running:
                self.start(spec)

    def ended(self) -> str:
        """The name of a process that was started and is no more; empty while all run. For the time of starting."""
        return next((name for name, process in self._running.items() if self._has_ended(process)), "")

    def run(self) -> None:
        """Supervises until SIGINT or SIGTERM, then stops everything."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # only to end the sleep below
        while not self._stopping:
            self._reap()
            self._restart_due()
            if self._untold:
                self._tell()
            self._rotate_logs()
            time.sleep(0.2)
        self.stop_all()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _rotate_logs(self) -> None:
        if time.monotonic() >= self._logs_due:
            self._logs_due = time.monotonic() + LOGS_S
            for spec in self._specs:
                rotate(spec.log)

    def _reap(self) -> None:
        for process in list(self._running.values()):
            if self._has_ended(process):
                del self._running[process.spec.name]
                steady = time.monotonic() - process.since > STEADY_S
                pause_s = FIRST_PAUSE_S if steady else min(process.pause_s * 2, LONGEST_PAUSE_S)
                self._due[process.spec.name] = (
                    time.monotonic() + pause_s,
                    Running(process.spec, 0, 0.0, pause_s),
                )

    def _restart_due(self) -> None:
        for name, (when, process) in list(self._due.items()):
            if time.monotonic() >= when:
                try:
                    self.start(process.spec, process.pause_s)
                except OSError as error:  # no memory, or too many processes
                    print(f"`{name}` cannot be started now: {error.strerror}", file=sys.stderr)  # noqa: T201
                    self._due[name] = (time.monotonic() + LONGEST_PAUSE_S, process)
                else:
                    del self._due[name]

    @staticmethod
    def _has_ended(process: Running) -> bool:
        try:
            return os.waitpid(process.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            return True

    def stop_all(self) -> None:
        """Sends SIGTERM to all but the first, waits, kills what is left, and then does the same to the first.

        The first is the message bus: what the others still have to say goes through it.
        """
        first = self._specs[0].name
        self._end([process for name, process in self._running.items() if name != first])
        self._end([process for name, process in self._running.items() if name == first])

    def _end(self, processes: list[Running]) -> None:
        for process in processes:
            _signal(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        while processes and time.monotonic() < deadline:
            processes = [process for process in processes if not self._has_ended(process)]
            time.sleep(0.02)
        for process in processes:
            _signal(process.pid, signal.SIGKILL)
            os.waitpid(process.pid, 0)


def end_marked(variable: str, value: str) -> None:
    """Ends every process that was started with ``variable=value`` in its environment: SIGTERM, then SIGKILL.

    Processes of our own are not among them, as a fork keeps the environment its parent was started with; what they
    started and left behind, such as the agent of a training job, is.
    """
    mark = f"{variable}={value}".encode()
    left = [pid for pid in _pids() if mark in _environ(pid).split(b"\0")]
    for pid in left:
        _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while left and time.monotonic() < deadline:
        left = [pid for pid in left if mark in _environ(pid).split(b"\0")]
        time.sleep(0.05)
    for pid in left:
        _signal(pid, signal.SIGKILL)


def _pids() -> list[int]:
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdecimal() and int(entry.name) != os.getpid()
    ]


def _environ(pid: int) -> bytes:
    """The environment of a process; empty when it is gone, a zombie, or another user's."""
    try:
        return (Path("/proc") / str(pid) / "environ").read_bytes()
    except OSError:
        return b""


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
