"""Named places where a fault test makes the process die; what holds afterwards is the test's matter."""

import os
import signal
from dataclasses import dataclass

ACTIONS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@dataclass
class Trap:
    """A point that was armed: the signal comes when it is passed for the last of so many times."""

    signal: signal.Signals
    passes: int = 1


def armed(setting: str) -> dict[str, Trap]:
    """The points of `SLUICE_FAILPOINT=after_commit:kill:3,before_ack:stop`; exits with a sentence on other text."""
    points = {}
    for item in filter(None, setting.split(",")):
        name, _, rest = item.partition(":")
        action, _, passes = rest.partition(":")
        if action not in ACTIONS or not (passes or "1").isdecimal():
            raise SystemExit(
                f"SLUICE_FAILPOINT has `{item}`; write `name:kill` or `name:stop`, with `:3` for the third time "
                "it is passed, joined by commas"
            )
        points[name] = Trap(ACTIONS[action], int(passes or 1))
    return points


# Read once: a process cannot be armed from outside while it runs, so production pays one lookup.
_ARMED = armed(os.environ.get("SLUICE_FAILPOINT", ""))


def failpoint(name: str) -> None:
    """Does nothing, unless the environment armed this point: then the process is killed or stopped here."""
    if _ARMED and (trap := _ARMED.get(name)):
        trap.passes -= 1
        if trap.passes == 0:
            # Whoever reads the log afterwards should not take it for a crash.
            os.write(2, f"failpoint {name}: {trap.signal.name}\n".encode())
            os.kill(os.getpid(), trap.signal)
