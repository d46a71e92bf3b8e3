"""Reads what a recipe writes while it works: figures for the report, and phases as spans. It knows no recipe."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kit.telemetry import span
from sluice.types import v1 as types

#: Keys of a line that are no figures.
ABOUT = ("time", "kind", "step", "total_steps", "message")
RESUMING = re.compile(r"resuming from checkpoint-(\d+)")
MAX_LINE_BYTES = 1 << 20


class ProgressFile:
    """`progress.jsonl` as far as it was read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.progress = types.Progress()
        self.resumed_from_step = 0
        self._offset = 0
        self._phase = ExitStack()

    def read_on(self) -> bool:
        """Takes in the lines that came since; says whether there were any."""
        changed = False
        for line in self._new_lines():
            changed = True
            self._take(line)
        return changed

    def close(self) -> None:
        """Ends the span of the last phase."""
        self._phase.close()

    def _new_lines(self) -> Iterator[dict[str, Any]]:
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                while (line := file.readline(MAX_LINE_BYTES)).endswith(b"\n"):
                    self._offset += len(line)
                    try:
                        found = json.loads(line)
                    except ValueError:
                        continue
                    if isinstance(found, dict):
                        yield found
        except FileNotFoundError:
            return

    def _take(self, line: dict[str, Any]) -> None:
        self.progress.done = _whole(line.get("step"), self.progress.done)
        self.progress.total = _whole(line.get("total_steps"), self.progress.total)
        if line.get("kind") == "phase":
            self._enter(str(line.get("message", ""))[:80])
        prefix = "eval_" if line.get("kind") == "eval" else ""
        for name, value in line.items():
            if name not in ABOUT and isinstance(value, int | float) and math.isfinite(value):
                self.progress.figures[prefix + name] = float(value)

    def _enter(self, phase: str) -> None:
        if resuming := RESUMING.match(phase):
            self.resumed_from_step = int(resuming[1])
        self.progress.phase = phase.split(" ")[0]
        self._phase.close()
        self._phase.enter_context(span(f"recipe.{self.progress.phase}"))


def _whole(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 62 else otherwise
