"""The engine agent as a process, with the fake engine in place of a real one: all else is what production runs."""

import os
from functools import partial

from kit.serve import run
from services.gateway.host.app import application
from services.gateway.host.settings import HostSettings
from tests.fakes.engine import FakeEngine


def main() -> None:
    """Serves until SIGTERM."""
    os.environ.setdefault("SLUICE_ENGINE", "fake")
    run(HostSettings.from_env, partial(application, engines={"fake": FakeEngine()}))


if __name__ == "__main__":
    main()
