"""Named places where a fault test makes the process die; what holds afterwards is the test's matter."""

import os
import signal

ACTIONS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def armed(setting: str) -> dict[str, signal.Signals]:
    """The points of `SLUICE_FAILPOINT=after_commit:kill,before_ack:stop`; exits with a sentence on other text."""
    points = {}
    for item in filter(None, setting.split(",")):
        name, _, action = item.partition(":")
        if action not in ACTIONS:
            raise SystemExit(f"SLUICE_FAILPOINT has `{item}`; write `name:kill` or `name:stop`, joined by commas")
        points[name] = ACTIONS[action]
    return points


# Read once: a process cannot be armed from outside while it runs, so production pays one lookup.
_ARMED = armed(os.environ.get("SLUICE_FAILPOINT", ""))


def failpoint(name: str) -> None:
    """Does nothing, unless the environment armed this point: then the process is killed or stopped here."""
    if _ARMED and name in _ARMED:
        os.kill(os.getpid(), _ARMED[name])
