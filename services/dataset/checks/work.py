"""The checking process: does one task, whose bytes come through one pipe, and tells what it finds through another."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from services.dataset.checks import erase, show, upload, version, wire
from services.dataset.checks.child import Wire
from services.dataset.lean import without_pandas

#: What is done for each kind of task.
WORK: dict[type[Any], Callable[[Any, Wire], Any]] = {
    wire.Task: upload.check,
    wire.Describe: version.describe,
    wire.Repeats: version.repeats,
    wire.Compare: version.compare,
    wire.CountNew: version.count_new,
    wire.SharedIds: version.shared_ids,
    wire.Match: erase.match,
    wire.Erase: erase.erase,
    wire.Sift: erase.sift,
    wire.Show: show.show,
}


def main() -> None:
    """Runs until the outcome is sent, or the service is gone."""
    outgoing = os.fdopen(os.dup(1), "wb", buffering=1 << 20)
    os.dup2(2, 1)  # whatever a library prints is no message of ours
    wires = Wire(os.fdopen(0, "rb", buffering=1 << 20), outgoing)
    without_pandas()
    import sluice.rows.convert  # noqa: F401 - what takes longest, while the task is on its way

    task = wires.task()
    try:
        wires.send(wire.DONE, wire.encode(WORK[type(task)](task, wires)))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        wires.send(wire.BROKE, wire.encode(wire.Broke(type(error).__name__, place.filename, place.lineno or 0)))
        sys.exit(1)
