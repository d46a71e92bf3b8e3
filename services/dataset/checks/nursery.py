"""The process that checking processes are forked from: it has loaded what they need, and knows no file and no task.

Loading Arrow takes half a second, a fork some milliseconds. Through a socket it is told to fork a process around two
pipes, or to kill one, and tells the id of each and how it ended. It does nothing else: the only other threads are those
that allocators and Polars begin with and that wait, so a fork finds no lock taken. Its processes end with it.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket

from services.dataset.checks import work
from services.dataset.checks.forks import ENDED, FORK, FORKED, KILL, MESSAGE
from services.dataset.lean import without_pandas

_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None, use_errno=True).prctl


class Forker:
    """Forks, kills and reaps until the service is gone."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._numbers: dict[int, int] = {}
        self._woken, wake = os.pipe2(os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake)

    def run(self) -> None:
        """Works until the other end of the socket is closed."""
        while True:
            ready, _, _ = select.select([self._control.fileno(), self._woken], [], [])
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._reap()
            if self._control.fileno() in ready and not self._obey():
                return

    def _obey(self) -> bool:
        message, pipes, _, _ = socket.recv_fds(self._control, MESSAGE.size, 2)
        if not message:
            return False
        kind, number, _ = MESSAGE.unpack(message)
        if kind == FORK and len(pipes) == 2:
            self._fork(number, *pipes)
        elif kind == FORK:  # there is no room for more open files
            self._tell(ENDED, number, 1)
        elif kind == KILL:
            for pid in [pid for pid, each in self._numbers.items() if each == number]:
                os.kill(pid, signal.SIGKILL)  # not reaped yet, so the id is still its own
        return True

    def _fork(self, number: int, incoming: int, outgoing: int) -> None:
        try:
            pid = os.fork()
            if not pid:
                _become_a_check(incoming, outgoing)
            self._numbers[pid] = number
            self._tell(FORKED, number, pid)
        except OSError:  # no memory, or too many processes: the next may get through
            self._tell(ENDED, number, 1)
        finally:
            os.close(incoming)
            os.close(outgoing)

    def _tell(self, kind: bytes, number: int, told: int) -> None:
        self._control.send(MESSAGE.pack(kind, number, told))

    def _reap(self) -> None:
        while self._numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._tell(ENDED, self._numbers.pop(pid), os.waitstatus_to_exitcode(status))


def _become_a_check(incoming: int, outgoing: int) -> None:
    """Runs a checking process around the two pipes, and ends."""
    code = 1
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(incoming, 0)
        os.dup2(outgoing, 1)
        os.closerange(3, max(incoming, outgoing) + 1)
        work.main()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        os._exit(code)  # whatever happens: what comes after a fork here is the nursery's


def main() -> None:
    """The nursery; its standard input is the socket."""
    without_pandas()
    import sluice.rows.convert  # noqa: F401 - what takes longest

    Forker(socket.socket(fileno=0)).run()


if __name__ == "__main__":
    main()
