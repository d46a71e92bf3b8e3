"""Ends what a suite left behind, engines included: `python tests/suite_guard.py HOME` does so when its stdin closes.

Whoever started a suite holds the other end; however it ends, the pipe closes and the guard acts.
"""

import contextlib
import sys
from pathlib import Path

import psutil


def sweep(home: str) -> list[int]:
    """SIGKILLs every process of the suite in `home`, known by environment, open files or arguments; returns their ids.

    Services carry SLUICE_HOME in the environment they were started with; engines and recipes, which get a bare one,
    have a file below the home open or name one.
    """
    ended: list[int] = []
    while found := _of(home):
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, 5)
        ended += [process.pid for process in found]
    return ended


def _of(home: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != psutil.Process().pid and process.status() != psutil.STATUS_ZOMBIE:
                found += [process] if _belongs(process, home) else []
    return found


def _belongs(process: psutil.Process, home: str) -> bool:
    below, folder = f"{home}/", Path(f"/proc/{process.pid}")
    with contextlib.suppress(OSError):
        # Not psutil's environ(): a process that renamed itself has overwritten the first part.
        if f"SLUICE_HOME={home}\0".encode() in (folder / "environ").read_bytes():
            return True
        if any(str(each.readlink()).startswith(below) for each in (folder / "fd").iterdir()):
            return True
    arguments = process.cmdline()
    return not any(part.endswith("suite_guard.py") for part in arguments) and any(below in part for part in arguments)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    sweep(sys.argv[1])
