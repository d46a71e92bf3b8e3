"""The suite that runs in a home on this machine, as its state file tells; it asks no service."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path


def home_of(environ: Mapping[str, str] = os.environ) -> Path:
    """The home that is meant when none is given, whether there is one or not."""
    return Path(environ.get("SLUICE_HOME") or ".sluice").resolve()


def local_address(home: Path) -> str:
    """Where the suite of this home listens; empty when none runs there, or its state file makes no sense."""
    try:
        state = json.loads((home / "run" / "suite.json").read_text("utf-8"))
        pid, address = int(state["pid"]), str(state["address"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return address if pid and _is_alive(pid) else ""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
