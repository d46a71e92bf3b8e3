"""Ends what a suite left behind, engines included: `python tests/suite_guard.py HOME` does so when its stdin closes.

Whoever started a suite holds the other end; however it ends, the pipe closes and the guard acts.
"""

import contextlib
import sys

import psutil


def sweep(home: str) -> list[int]:
    """SIGKILLs every process of the suite in `home`, known by its environment or command line; returns their ids.

    Services carry SLUICE_HOME in the environment they were started with; engines and recipes, which get a bare one,
    name a file below the home.
    """
    ended = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != psutil.Process().pid and _belongs(process, home):
                process.kill()
                ended.append(process.pid)
    return ended


def _belongs(process: psutil.Process, home: str) -> bool:
    if process.environ().get("SLUICE_HOME") == home:
        return True
    arguments = process.cmdline()
    return not any(part.endswith("suite_guard.py") for part in arguments) and any(
        f"{home}/" in part for part in arguments
    )


if __name__ == "__main__":
    sys.stdin.buffer.read()
    sweep(sys.argv[1])
