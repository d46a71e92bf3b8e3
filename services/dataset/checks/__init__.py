"""The checks of an upload, in a process of their own, which is given no key, no database and no environment of ours.

`check` is what the service calls; `python -m services.dataset.checks` is the process. Hostile files can crash,
fill or stall it, and nothing else.
"""

from services.dataset.checks.parent import Checker, CheckFailed, Event, Progress, check
from services.dataset.checks.spare import Spare
from services.dataset.checks.wire import Aside, Outcome, Part, Task

__all__ = ["Aside", "CheckFailed", "Checker", "Event", "Outcome", "Part", "Progress", "Spare", "Task", "check"]
