"""`python -m tests.fakes.suite up`: the suite with fake engines and recipes, whose processes can be armed.

A process that finds `$SLUICE_HOME/run/arm/<name>` when it starts takes the file away and runs with its text as
SLUICE_FAILPOINT; so a test kills it once, and it is started again armed once.
"""

import importlib
import os
import sys
from pathlib import Path

from setproctitle import getproctitle

from services.suite import command
from services.suite.programs import PROGRAMS

FAKES = {"trainer": "tests.fakes.pipeline_trainer", "engine-host": "tests.fakes.host_main"}
MODULES = {**PROGRAMS, **FAKES}


def main() -> None:
    """Runs the process of the suite that this one was started as."""
    name = getproctitle().removeprefix("sluice ")
    trap = Path(os.environ["SLUICE_HOME"], "run", "arm", name)
    if not trap.exists():
        importlib.import_module(MODULES[name]).main()
        return
    os.environ["SLUICE_FAILPOINT"] = trap.read_text()
    trap.unlink()
    # Traps are read when the kit is imported, which the suite has done already.
    os.execv(sys.executable, [sys.executable, "-m", MODULES[name]])


if __name__ == "__main__":
    command.main(modules=dict.fromkeys(PROGRAMS, "tests.fakes.suite"))
