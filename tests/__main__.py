"""``python -m tests``: the landing tier, folder by folder, with the time of each; ``--prove`` runs the long tier."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
#: The fast and telling ones first.
ORDER = ("style", "unit", "conformance", "contract", "integration", "recipes", "faults", "e2e")


def main() -> int:
    """Runs every folder of tests; the last line counts all of them, as one run of pytest would."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__)
    parser.add_argument("--prove", action="store_true", help="the long tier: storms, soaks, interleavings, figures")
    parser.add_argument("folders", nargs="*", default=ORDER, help="only these folders")
    options = parser.parse_args()
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    rows, worst = [], 0
    for folder in options.folders:
        if not any((TESTS / folder).rglob("test_*.py")):
            continue
        started = time.monotonic()
        status, output = _run(folder, options.prove)
        found = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", output)}
        counts["passed"] += found.get("passed", 0)
        counts["failed"] += found.get("failed", 0) + found.get("error", 0)
        counts["skipped"] += found.get("skipped", 0)
        worst = max(worst, 0 if status == 5 else status)  # 5: nothing of this tier in the folder
        rows.append((folder, time.monotonic() - started, found.get("passed", 0)))
    for folder, seconds, passed in rows:
        _say(f"{folder:12} {seconds:7.1f} s  {passed:5} passed")
    _say(f"{'all':12} {sum(seconds for _, seconds, _ in rows):7.1f} s")
    _say(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return worst


def _run(folder: str, prove: bool) -> tuple[int, str]:
    """Runs one folder, shows its output as it comes, and returns pytest's status and its last lines."""
    command = [sys.executable, "-m", "pytest", "-q", str(TESTS / folder), "-m", "prove" if prove else "not prove"]
    _say(f"\n== tests/{folder}")
    tail: list[str] = []
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            tail = [*tail[-3:], line]
    return process.returncode, "".join(tail)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
