"""Reads and bounds an engine's log; quote it only from before the first user request: no prompt is in it."""

import os
import re
from pathlib import Path

_TAIL = 256 * 1024
_PREFIX = re.compile(r"^\(\w[^)]*\)\s*|^(?:INFO|WARNING|ERROR)\b[^\]]*\]\s*")
_ERROR = re.compile(r"^(?:[\w.]*(?:Error|Exception|Interrupt): |Value error, ).+|^.*: error: .+")
_ECHO = ("See root cause above", "See stack trace")
_QUOTED = 300


def last_error(path: Path) -> str:
    """The last line that names a cause, of at most 300 characters; else the last line there is."""
    lines = _lines(path)
    causes = (line for line in reversed(lines) if _ERROR.match(line) and not any(echo in line for echo in _ECHO))
    return next(causes, lines[-1] if lines else "it wrote no log").partition(" [type=")[0][:_QUOTED]


def last_line(path: Path) -> str:
    """The last line that is not blank, of at most 300 characters; "" for an empty log."""
    lines = _lines(path)
    return lines[-1][:_QUOTED] if lines else ""


def trim(path: Path, limit_bytes: int) -> None:
    """Keep the newer half of a log over its limit as `<name>.1` and empty the log; its writer must append."""
    if not path.exists() or path.stat().st_size <= limit_bytes:
        return
    with path.open("rb") as log:
        log.seek(-limit_bytes // 2, os.SEEK_END)
        kept = log.read()
    older = os.open(path.with_name(path.name + ".1"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(older, "wb") as file:
        file.write(kept)
    os.truncate(path, 0)


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - _TAIL))
            text = log.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in map(_bare, text.splitlines()) if line]


def _bare(line: str) -> str:
    """A log line without vLLM's process and logger prefixes."""
    line = line.strip()
    while (shorter := _PREFIX.sub("", line)) != line:
        line = shorter
    return line.strip()
