"""``python -m tests``: the landing tier, folder by folder; ``--prove`` runs the long tier, part by part."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.parts import LIMIT_S, PARTS, of_each

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
#: Stages, one after the other, of lanes that run side by side; in each the fast and telling folders first. Integration
#: tests wait for other processes half of their time. Canaries of `e2e` judge how fast answers come, so it runs alone.
STAGES = (
    (("style", "unit", "conformance", "contract", "recipes"), ("integration", "faults")),
    (("e2e",),),
)
FOLDERS = [folder for lanes in STAGES for lane in lanes for folder in lane]
#: What a part that is stopped gets to end its suites in order.
STOP_S = 30.0
NOTHING_TO_RUN = 5  # pytest's status


@dataclass(frozen=True)
class Ran:
    """How one folder or part went."""

    name: str
    seconds: float
    passed: int
    failed: int
    skipped: int
    status: int
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether all that there was to run held."""
        return self.status in (0, NOTHING_TO_RUN)


def main() -> int:
    """Runs what is asked for and ends with a table; exit 1 when something failed, 2 for a name that there is not."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__)
    parser.add_argument("--prove", action="store_true", help="the long tier: kills, storms, soaks, figures")
    parser.add_argument("--seed", type=int, help="of the long tier; drawn and printed when not given")
    parser.add_argument("--list", action="store_true", help="with --prove: only name the parts and their tests")
    parser.add_argument("names", nargs="*", help="only these folders, or parts")
    options = parser.parse_args()
    known = [part.name for part in PARTS] if options.prove else FOLDERS
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"there is no {' and no '.join(unknown)}; there are {', '.join(known)}")
    names = [name for name in known if name in options.names or not options.names]
    seed = str(options.seed if options.seed is not None else os.environ.get("SEED") or random.randrange(10**6))
    started = time.monotonic()
    if not options.prove:
        return show(asyncio.run(land(names)), started, "")
    ran = asyncio.run(prove(names, seed, options.list))
    return 0 if options.list else show(ran, started, f"seed {seed}; `--prove --seed {seed} NAME` repeats a part")


async def land(folders: Sequence[str]) -> list[Ran]:
    """The landing tier, as one run of pytest a folder."""
    found: list[Ran] = []
    for lanes in STAGES:
        wanted = [asked for lane in lanes if (asked := [folder for folder in lane if folder in folders])]
        async with asyncio.TaskGroup() as group:
            ran = [group.create_task(_lane(asked, shared=len(wanted) > 1)) for asked in wanted]
        found += [each for lane in ran for each in lane.result()]
    return found


async def _lane(folders: Sequence[str], shared: bool) -> list[Ran]:
    """One folder after the other; where the screen is shared, each line names its folder."""
    found = []
    for folder in folders:
        _say(f"\n== tests/{folder}")
        command = ["pytest", "-q", str(TESTS / folder), "-m", "not prove"]
        found.append(await run(folder, command, os.environ, prefix=f"{folder:12} " if shared else ""))
    return found


async def prove(names: Sequence[str], seed: str, only_list: bool) -> list[Ran]:
    """The long tier, each part a process of its own that has ``LIMIT_S``."""
    environ = {**os.environ, "SEED": seed}
    asked = [part for part in PARTS if part.name in names]
    tests = of_each(collected(environ)) if any(part.pattern for part in asked) else {}
    found = []
    for part in asked:
        if part.pattern and not tests[part.name]:
            continue
        _say(f"\n== {part.name}  (seed {seed}, at most {LIMIT_S:.0f} s)")
        if only_list:
            _say("\n".join(tests.get(part.name, part.measure)))
            continue
        command = ["pytest", "-q", "-m", "prove", *tests[part.name]] if part.pattern else ["benchmarks", *part.measure]
        found.append(await run(part.name, command, environ, LIMIT_S))
    return found


def collected(environ: Mapping[str, str]) -> list[str]:
    """The ids of all tests of the long tier. Exits with pytest's own words when it cannot read them."""
    files = [str(path) for path in sorted(TESTS.rglob("test_*.py")) if "mark.prove" in path.read_text("utf-8")]
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-m", "prove", *files]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    if done.returncode not in (0, NOTHING_TO_RUN):
        sys.exit(done.stdout + done.stderr)
    return [line for line in done.stdout.splitlines() if "::" in line]


async def run(
    name: str, command: Sequence[str], environ: Mapping[str, str], limit_s: float | None = None, prefix: str = ""
) -> Ran:
    """Runs a module, shows what it says as it comes, and counts; one that outlasts ``limit_s`` has failed."""
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *command),
        cwd=ROOT,
        env={**environ, "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        process_group=0,
    )
    assert process.stdout is not None
    shown = asyncio.create_task(_shown(process.stdout, prefix))
    late = False
    try:
        late = not (await asyncio.wait({shown}, timeout=limit_s))[0]
    finally:  # late, or interrupted
        if not shown.done():
            await _end(process)
    counts = {
        word: int(number)
        for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", (await shown).decode(errors="replace"))
    }
    status = await process.wait()
    return Ran(
        name,
        time.monotonic() - started,
        counts.get("passed", 0),
        counts.get("failed", 0) + counts.get("error", 0),
        counts.get("skipped", 0),
        1 if late else status,
        f"NOT DONE within {limit_s:.0f} s" if late else "",
    )


async def _shown(output: asyncio.StreamReader, prefix: str) -> bytes:
    """Writes on what comes; returns the end of it. Not by lines where there is no prefix: a dot tells of a test."""
    tail = line = b""
    while piece := await output.read(4096):
        tail = (tail + piece)[-2000:]
        if prefix:
            *lines, line = (line + piece).split(b"\n")
            piece = b"".join(prefix.encode() + each + b"\n" for each in lines)
        sys.stdout.buffer.write(piece)
        sys.stdout.flush()
    if line:
        _say(prefix + line.decode(errors="replace"))
    return tail


async def _end(process: asyncio.subprocess.Process) -> None:
    """Interrupts what runs too long, then ends it; suites that it started see to themselves (tests/suite_guard.py)."""
    process.send_signal(signal.SIGINT)
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)


def show(ran: Sequence[Ran], started: float, note: str) -> int:
    """Prints the table, with the time since ``started``; returns the exit status."""
    _say("")
    for each in ran:
        verdict = each.note or ("ok" if each.ok else f"FAILED with status {each.status}")
        counts = f"{each.passed:5} passed {each.failed:3} failed {each.skipped:3} skipped"
        _say(f"{each.name:18} {each.seconds:7.1f} s {counts}  {verdict}")
    _say(f"{'all':18} {time.monotonic() - started:7.1f} s  {note}")
    passed, failed, skipped = (sum(getattr(each, word) for each in ran) for word in ("passed", "failed", "skipped"))
    _say(f"{passed} passed, {failed} failed, {skipped} skipped")
    return int(not all(each.ok for each in ran))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
