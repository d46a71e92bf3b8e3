"""Finished spans as JSON lines in files that rotate by size, for `sluice trace`; it adds no content."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_FILES = 4


class TraceFile(SpanExporter):
    """Appends spans to ``<folder>/<service>.jsonl``; older ones are in ``.1.jsonl`` (newest) to ``.3``."""

    def __init__(
        self, folder: Path, service: str, *, max_bytes: int = MAX_FILE_BYTES, max_files: int = MAX_FILES
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{service}.jsonl"
        self._service, self._max_bytes, self._max_files = service, max_bytes, max_files
        self._lock = threading.Lock()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Appends the spans; a full disk loses them and never disturbs the work they tell of."""
        lines = "".join(json.dumps(record(found, self._service)) + "\n" for found in spans)
        try:
            with self._lock:
                self._rotate(len(lines))
                with open(self._path, "a", encoding="utf-8", opener=_private) as file:
                    file.write(lines)
        except OSError:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def _rotate(self, coming: int) -> None:
        if not self._path.exists() or self._path.stat().st_size + coming <= self._max_bytes:
            return
        for age in range(self._max_files - 1, 0, -1):
            older = self._path.with_suffix(f".{age}.jsonl")
            newer = self._path.with_suffix(f".{age - 1}.jsonl") if age > 1 else self._path
            if newer.exists():
                newer.replace(older)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def record(found: ReadableSpan, service: str) -> dict[str, Any]:
    """One span as `sluice trace` reads it; ids are hex, times nanoseconds since 1970."""
    context = found.context
    return {
        "trace_id": f"{context.trace_id:032x}" if context else "",
        "span_id": f"{context.span_id:016x}" if context else "",
        "parent_id": f"{found.parent.span_id:016x}" if found.parent else "",
        "name": found.name,
        "service": service,
        "start_unix_ns": found.start_time,
        "end_unix_ns": found.end_time,
        "status": found.status.status_code.name,
        "attributes": dict(found.attributes or {}),
    }


def read_traces(folder: Path) -> Iterator[dict[str, Any]]:
    """Every span in the trace files of a folder, oldest file first, without lines that a crash cut short."""
    for path in sorted(folder.glob("*.jsonl"), key=lambda found: found.stat().st_mtime):
        with path.open(encoding="utf-8") as file:
            for line in file:
                try:
                    yield json.loads(line)
                except ValueError:
                    continue
