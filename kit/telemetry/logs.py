"""Log records as JSON lines with the trace id and without known shapes of secrets; it picks no level."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from kit.telemetry.active import active
from kit.telemetry.traces import current_trace_id

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
# API keys, service tokens (JWT), authorization headers, credentials inside URLs.
SECRETS = (
    (re.compile(r"sk-sluice-[A-Za-z0-9_\-]+"), "sk-sluice-[redacted]"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=\-]{8,}"), r"\1 [redacted]"),
    (re.compile(r"\beyJ[A-Za-z0-9_\-]{6,}\.[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]*"), "[redacted]"),
    (re.compile(r"(://[^/\s:@\"]*):[^/\s@\"]+@"), r"\1:[redacted]@"),
)


class Log:
    """A logger that takes the event in a few words, the rest by name: ``log.info("claimed", job=name)``."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        """Logs what helps only when looking for a bug."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Logs what an operator may want to know."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Logs what an operator should know."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, *, exc_info: BaseException | bool | None = None, **fields: Any) -> None:
        """Logs what an operator must know; ``exc_info`` adds the traceback."""
        self._log(logging.ERROR, event, fields, exc_info)

    def _log(
        self, level: int, event: str, fields: dict[str, Any], exc_info: BaseException | bool | None = None
    ) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, exc_info=exc_info, extra={"fields": fields}, stacklevel=3)


def get_log(name: str) -> Log:
    """The log of a module: ``log = get_log(__name__)``."""
    return Log(name)


class JsonLines(logging.Formatter):
    """Formats any record, also those of libraries, as one JSON line."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object: time, level, service, logger, event, trace_id, then the fields."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": active.service,
            "logger": record.name,
            "event": record.getMessage(),
        }
        if trace_id := current_trace_id():
            line["trace_id"] = trace_id
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return redact(json.dumps(line, default=str, ensure_ascii=False))


class Seldom(logging.Filter):
    """Lets the exporters say a thing once a minute: an endpoint that is away is no news every second."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """False for what an exporter has said within the last minute, whatever the values in it."""
        if not record.name.startswith("opentelemetry."):
            return True
        said = record.name, str(record.msg)
        if record.created - self._said.get(said, float("-inf")) < 60:
            return False
        self._said[said] = record.created
        return True


def redact(text: str) -> str:
    """The text with every known shape of a secret made unreadable."""
    for pattern, instead in SECRETS:
        text = pattern.sub(instead, text)
    return text


def handler(level: str, file: Path | None) -> logging.Handler:
    """A handler to stderr, or to a file that rotates at 8 MiB; ValueError for an unknown level."""
    if level.upper() not in LEVELS:
        raise ValueError(f"LOG_LEVEL `{level}` does not exist; use one of {', '.join(LEVELS)}")
    made: logging.Handler = logging.StreamHandler()
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        made = RotatingFileHandler(file, maxBytes=8 * 1024 * 1024, backupCount=3, encoding="utf-8")
    made.setFormatter(JsonLines())
    made.addFilter(Seldom())
    return made
