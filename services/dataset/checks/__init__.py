"""Whatever parses rows, in a process of its own, which is given no key, no database and no environment of ours.

`run` is what the service calls, with one of the tasks of `wire`; `work` is what the process does.
Hostile files can crash, fill or stall it, and nothing else.
"""

from services.dataset.checks.parent import MAX_MEMORY_BYTES, CheckFailed, CheckKilled, Event, Progress, Source, run
from services.dataset.checks.process import Checker
from services.dataset.checks.spare import Spare
from services.dataset.checks.wire import (
    AnyTask,
    Aside,
    Asset,
    AssetHead,
    Compare,
    CountNew,
    Describe,
    Found,
    Outcome,
    Part,
    Repeats,
    SharedIds,
    Stretch,
    Task,
)

__all__ = [
    "MAX_MEMORY_BYTES",
    "AnyTask",
    "Aside",
    "Asset",
    "AssetHead",
    "CheckFailed",
    "CheckKilled",
    "Checker",
    "Compare",
    "CountNew",
    "Describe",
    "Event",
    "Found",
    "Outcome",
    "Part",
    "Progress",
    "Repeats",
    "SharedIds",
    "Source",
    "Spare",
    "Stretch",
    "Task",
    "run",
]
