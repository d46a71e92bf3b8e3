"""Becomes the command it is given, in a process that dies with its parent: `leash.py PARENT_PID COMMAND…`.

A script of its own: code between fork and exec is not safe in a process with threads. It imports next to nothing.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Asks the kernel (Linux) for SIGKILL at the death of the parent, then executes the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was asked
        sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
