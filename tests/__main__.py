"""``python -m tests``: the landing tier, folder by folder; ``--prove`` runs the long tier, part by part."""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.parts import LIMIT_S, PARTS, of_each

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
#: The fast and telling ones first.
ORDER = ("style", "unit", "conformance", "contract", "integration", "recipes", "faults", "e2e")
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
    known = [part.name for part in PARTS] if options.prove else ORDER
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"there is no {' and no '.join(unknown)}; there are {', '.join(known)}")
    names = [name for name in known if name in options.names or not options.names]
    seed = str(options.seed if options.seed is not None else os.environ.get("SEED") or random.randrange(10**6))
    if not options.prove:
        return show(land(names), "")
    ran = prove(names, seed, options.list)
    return 0 if options.list else show(ran, f"seed {seed}; `--prove --seed {seed} NAME` repeats a part")


def land(folders: Sequence[str]) -> list[Ran]:
    """The landing tier, as one run of pytest a folder."""
    found = []
    for folder in folders:
        if any((TESTS / folder).rglob("test_*.py")):
            _say(f"\n== tests/{folder}")
            found.append(run(folder, ["pytest", "-q", str(TESTS / folder), "-m", "not prove"], os.environ))
    return found


def prove(names: Sequence[str], seed: str, only_list: bool) -> list[Ran]:
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
        found.append(run(part.name, command, environ, LIMIT_S))
    return found


def collected(environ: Mapping[str, str]) -> list[str]:
    """The ids of all tests of the long tier. Exits with pytest's own words when it cannot read them."""
    files = [str(path) for path in sorted(TESTS.rglob("test_*.py")) if "mark.prove" in path.read_text("utf-8")]
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-m", "prove", *files]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    if done.returncode not in (0, NOTHING_TO_RUN):
        sys.exit(done.stdout + done.stderr)
    return [line for line in done.stdout.splitlines() if "::" in line]


def run(name: str, command: Sequence[str], environ: Mapping[str, str], limit_s: float = 0.0) -> Ran:
    """Runs a module, shows what it says as it comes, and counts; one that outlasts ``limit_s`` has failed."""
    started = time.monotonic()
    tail = b""
    late = threading.Event()
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        process_group=0,
    ) as process:
        assert process.stdout is not None
        watch = threading.Thread(target=_end_late, args=(process, limit_s, late), daemon=True)
        if limit_s:
            watch.start()
        try:
            while piece := os.read(process.stdout.fileno(), 4096):  # not by lines: a dot tells of a test
                sys.stdout.buffer.write(piece)
                sys.stdout.flush()
                tail = (tail + piece)[-2000:]
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            raise
    counts = {
        word: int(number)
        for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", tail.decode(errors="replace"))
    }
    return Ran(
        name,
        time.monotonic() - started,
        counts.get("passed", 0),
        counts.get("failed", 0) + counts.get("error", 0),
        counts.get("skipped", 0),
        1 if late.is_set() else process.returncode,
        f"NOT DONE within {limit_s:.0f} s" if late.is_set() else "",
    )


def _end_late(process: subprocess.Popen[bytes], limit_s: float, late: threading.Event) -> None:
    """Interrupts what runs too long, then ends it; suites that it started see to themselves (tests/suite_guard.py)."""
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        late.set()
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def show(ran: Sequence[Ran], note: str) -> int:
    """Prints the table; returns the exit status."""
    _say("")
    for each in ran:
        verdict = each.note or ("ok" if each.ok else f"FAILED with status {each.status}")
        counts = f"{each.passed:5} passed {each.failed:3} failed {each.skipped:3} skipped"
        _say(f"{each.name:18} {each.seconds:7.1f} s {counts}  {verdict}")
    _say(f"{'all':18} {sum(each.seconds for each in ran):7.1f} s  {note}")
    passed, failed, skipped = (sum(getattr(each, word) for each in ran) for word in ("passed", "failed", "skipped"))
    _say(f"{passed} passed, {failed} failed, {skipped} skipped")
    return int(not all(each.ok for each in ran))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
