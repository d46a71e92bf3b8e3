"""Which process a pid really is; knows the operating system and nothing of engines."""

import os
import subprocess
import sys
from pathlib import Path

_PROC = Path("/proc")
_LINUX = sys.platform == "linux"
_PS = ("ps", "-o", "stat=,lstart=", "-p")


def birth_of(pid: int) -> str | None:
    """A mark that two processes with the same pid never share; None where `pid` is gone or a zombie.

    On Linux the boot id and the start in ticks since boot (proc(5), field 22), which no clock step moves.
    """
    if not _LINUX:
        row = subprocess.run([*_PS, str(pid)], capture_output=True, text=True, check=False)
        state, _, started = row.stdout.strip().partition(" ")
        return None if not state or state.startswith("Z") else started.strip()
    fields = _stat(pid)
    if fields is None or fields[0] in ("Z", "X"):
        return None
    boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}:{fields[19]}"


def group_alive(group: int) -> bool:
    """Whether a process of this group runs; zombies, which a container may never reap, do not count."""
    if _LINUX:
        pids = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
        stats = (_stat(pid) for pid in pids)
        return any(stat is not None and stat[2] == str(group) and stat[0] not in ("Z", "X") for stat in stats)
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from 3 (state) on; the name before them may hold spaces and brackets."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()
