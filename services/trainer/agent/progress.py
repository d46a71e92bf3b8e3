"""Reads what a recipe writes while it works: figures for the report, and phases as spans. It knows no recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from kit.telemetry import span
from services.trainer.told import Line, figures_of, read_lines, whole
from sluice.types import v1 as types

RESUMING = re.compile(r"resuming from checkpoint-(\d{1,18})")
#: Names that a report carries at most.
MAX_FIGURES = 256


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

    def _new_lines(self) -> Iterator[Line]:
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                for line in read_lines(file):
                    self._offset = file.tell()
                    if line is not None:
                        yield line
        except FileNotFoundError:
            return

    def _take(self, line: Line) -> None:
        if (done := whole(line.get("step"))) is not None:
            self.progress.done = done
        if (total := whole(line.get("total_steps"))) is not None:
            self.progress.total = total
        if line.get("kind") == "phase":
            self._enter(str(line.get("message", ""))[:80].encode(errors="replace").decode())
        prefix = "eval_" if line.get("kind") == "eval" else ""
        figures = self.progress.figures
        for name, value in figures_of(line).items():
            if prefix + name in figures or len(figures) < MAX_FIGURES:
                figures[prefix + name] = value

    def _enter(self, phase: str) -> None:
        if resuming := RESUMING.match(phase):
            self.resumed_from_step = int(resuming[1])
        self.progress.phase = phase.split(" ")[0]
        self._phase.close()
        self._phase.enter_context(span(f"recipe.{self.progress.phase}"))
