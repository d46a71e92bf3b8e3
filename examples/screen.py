"""What the demo shows while something runs: progress bars, and made-up traffic with a count of who answered."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column


class Bar:
    """One bar of a progress display."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def to(self, done: float, total: float, note: str = "") -> None:
        """Moves the bar; a total of 0 means it is not known."""
        self._progress.update(self._task, completed=done, total=total or None, note=note)

    def finish(self, note: str) -> None:
        """Fills the bar."""
        self._progress.update(self._task, completed=1, total=1, note=note)


class Bars:
    """A progress display that stays on the screen when it is done."""

    def __init__(self, console: Console) -> None:
        room = max(console.width - 61, 1)
        self._progress = Progress(
            TextColumn("{task.description:32}"),
            BarColumn(14, table_column=Column(no_wrap=True)),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            # The one column that gives way on a narrow screen.
            TextColumn(
                "[dim]{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", max_width=room)
            ),
            console=console,
        )

    def add(self, title: str) -> Bar:
        """A new bar."""
        return Bar(self._progress, self._progress.add_task(title, total=None, note=""))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


class Traffic:
    """Two threads that ask an endpoint the same questions over and over, each time as a new session."""

    def __init__(self, http: str, key: str, endpoint: str, questions: Sequence[Any]) -> None:
        """Each question is the messages that lead up to an answer."""
        self._http, self._key, self._endpoint, self._questions = http, key, endpoint, questions
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._counts: Counter[str] = Counter()

    def __str__(self) -> str:
        return ", ".join(f"{version} {count}" for version, count in sorted(self._counts.items()))

    def _run(self, thread: int) -> None:
        from openai import OpenAI, OpenAIError

        client = OpenAI(base_url=f"{self._http}/v1", api_key=self._key, max_retries=0)
        for number, messages in enumerate(itertools.cycle(self._questions)):
            if self._stop.is_set():
                return
            try:
                answer = client.chat.completions.with_raw_response.create(
                    model=self._endpoint,
                    messages=messages,
                    max_tokens=24,
                    extra_headers={"x-sluice-session": f"{thread}-{number}"},
                )
            except OpenAIError as error:
                self._counts[f"error {type(error).__name__}"] += 1
                self._stop.wait(0.5)
                continue
            *_, model, _, version = answer.headers["x-sluice-version"].split("/")
            self._counts[f"{model}@{version}"] += 1

    def __enter__(self) -> Self:
        if self._questions:
            self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(2)]
            for thread in self._threads:
                thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)
