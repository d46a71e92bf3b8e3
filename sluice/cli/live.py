"""Following something that changes: one live screen in a terminal, a line a change in a log, JSON lines when asked."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from sluice.cli import screen, words

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sluice.cli.options import Session
    from sluice.client import UploadProgress
    from sluice.types import v1 as types

Item = TypeVar("Item")
#: A log gets a line at least this often while only figures change.
LINE_EVERY_S = 10.0
#: How long something that an event makes may take to be there.
AWAITED_S = 60.0
PHASES = {
    "hashing": "reading",
    "listing": "reading files beside",
    "assets": "sending files beside",
    "sending": "sending",
    "checking": "checking rows",
    "receiving": "receiving",
}


def follow(
    session: Session,
    items: Iterator[Item],
    *,
    view: Callable[[Item], RenderableType],
    line: Callable[[Item], tuple[str, str]],
    left: str,
) -> Item:
    """Shows every item and returns the last; Ctrl-C leaves with ``left`` and the thing goes on.

    ``view`` draws one item for a terminal. ``line`` gives (what always wants a new line, the whole line) for a log.
    """
    last: list[Item] = []
    try:
        if session.json:
            for item in items:
                screen.emit(item)  # type: ignore[arg-type]
                last[:] = [item]
        elif session.quiet:
            last.extend(items)
        elif sys.stdout.isatty():
            _live(items, view, last)
        else:
            _lines(items, line, last)
    except KeyboardInterrupt:
        screen.hint(session, left)
        raise
    return last[-1]


def awaited(session: Session, read: Callable[[], Item], within_s: float = AWAITED_S) -> Item:
    """What ``read`` gives once it is there; its NotFound when that is not so after ``within_s``."""
    from kit.rpc.errors import NotFound

    deadline, told = time.monotonic() + within_s, False
    while True:
        try:
            return read()
        except NotFound as missing:
            if time.monotonic() > deadline:
                raise
            if not told:
                screen.hint(session, f"{missing.message}; waiting …")
            told = True
        time.sleep(0.2)


def _live(items: Iterator[Item], view: Callable[[Item], RenderableType], last: list[Item]) -> None:
    from rich.live import Live

    for first in items:  # before it a fault leaves no empty line
        with Live(view(first), console=screen.out(), auto_refresh=False, transient=False) as live:
            last[:] = [first]
            for item in items:
                last[:] = [item]
                live.update(view(item), refresh=True)


def _lines(items: Iterator[Item], line: Callable[[Item], tuple[str, str]], last: list[Item]) -> None:
    before, written = "", float("-inf")
    shown = True
    text = ""
    for item in items:
        last[:] = [item]
        key, text = line(item)
        shown = key != before or time.monotonic() - written > LINE_EVERY_S
        if shown:
            before, written = key, time.monotonic()
            print(text, flush=True)
    if not shown:
        print(text, flush=True)


@contextmanager
def upload_bar(session: Session, name: str) -> Iterator[Callable[[UploadProgress], None]]:
    """A bar on stderr with rate and time left; nothing where stderr is no terminal, or with --quiet or --json."""
    if session.quiet or session.json or not screen.err().is_terminal:
        yield lambda progress: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    amount = TextColumn("{task.fields[amount]}")
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), amount, TimeRemainingColumn(compact=True))
    with Progress(*columns, console=screen.err(), transient=True) as bar:
        task, phase = bar.add_task(f"{name} …", total=None, amount=""), ""

        def show(progress: UploadProgress) -> None:
            nonlocal phase, task
            if progress.phase != phase:
                bar.remove_task(task)
                phase = progress.phase
                task = bar.add_task(f"{PHASES[phase]} {name}", total=progress.total or None, amount="")
            bar.update(task, completed=progress.done, total=progress.total or None)
            bar.update(task, amount=_amount(progress, bar.tasks[0].speed))

        yield show


@contextmanager
def work_bar(session: Session, text: str) -> Iterator[Callable[[types.Progress], None]]:
    """A bar on stderr while the suite looks at rows; nothing where `upload_bar` is nothing."""
    if session.quiet or session.json or not screen.err().is_terminal:
        yield lambda progress: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=screen.err(), transient=True) as bar:
        task = bar.add_task(text, total=None)

        def show(progress: types.Progress) -> None:
            waits = ", when others are done" if progress.phase == "waiting" else ""
            bar.update(task, description=text + waits, completed=progress.done, total=progress.total or None)

        yield show


def _amount(progress: UploadProgress, speed: float | None) -> str:
    """`12.0 MB of 40.0 MB, 9.1 MB/s`, or the rows that were checked."""
    if not progress.total:
        return f"{progress.done:,} rows checked".replace(",", " ") if progress.done else ""
    rate = f", {words.size(speed)}/s" if speed else ""
    return f"{words.size(progress.done)} of {words.size(progress.total)}{rate}"


class Pace:
    """How long what is left will take, from how fast it went since the first look. Time is an argument."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def left_s(self, done: int, total: int, now: float) -> float | None:
        """Seconds left; None while there is nothing to go by."""
        if self._first is None or done < self._first[0]:
            self._first = (done, now)
        steps, elapsed = done - self._first[0], now - self._first[1]
        if not total or steps <= 0 or elapsed <= 0:
            return None
        return (total - done) * elapsed / steps


def bar(done: float, total: float, width: int = 30, style: str = "green") -> RenderableType:
    """A bar of a share of something."""
    from rich.progress_bar import ProgressBar

    return ProgressBar(total=max(total, 1e-9), completed=done, width=width, complete_style=style, finished_style=style)


def figures(values: Any, most: int = 5) -> str:
    """`loss 0.4213  1 204 tokens/s` of the figures of a progress report, the known ones first."""
    parts = []
    if "loss" in values:
        parts.append(f"loss {values['loss']:.4f}")
    if "tokens_per_s" in values:
        parts.append(f"{values['tokens_per_s']:,.0f} tokens/s".replace(",", " "))
    parts += [f"{key} {value:.4g}" for key, value in sorted(values.items()) if key not in ("loss", "tokens_per_s")]
    return "  ".join(parts[:most])


def remaining(left_s: float | None) -> str:
    """`2 min 10 s left`, or nothing while it is not known."""
    return f"{words.duration(left_s)} left" if left_s else ""
