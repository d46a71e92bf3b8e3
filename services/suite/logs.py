"""Keeps the logs of processes small while they write them; it reads none.

A log is copied, then cut: who has it open for appending goes on at its new end. Lines that come between the two
steps are lost.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

LIMIT_BYTES = 64 << 20
KEEP = 3


def rotate(log: Path, limit_bytes: int = LIMIT_BYTES, keep: int = KEEP) -> bool:
    """Moves the content of a log that is larger than the limit to ``log.1`` … ``log.<keep>``; whether it did.

    A full disk leaves all as it is.
    """
    draft = log.with_name(f"{log.name}.new")
    try:
        if log.stat().st_size <= limit_bytes:
            return False
        shutil.copy(log, draft)
        for number in range(keep - 1, 0, -1):
            if _numbered(log, number).exists():
                _numbered(log, number).replace(_numbered(log, number + 1))
        draft.replace(_numbered(log, 1))
        os.truncate(log, 0)
    except OSError:
        draft.unlink(missing_ok=True)
        return False
    return True


def _numbered(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")
