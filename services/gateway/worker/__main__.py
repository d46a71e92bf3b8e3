"""``python -m services.gateway.worker``: one data-path worker."""

from collections.abc import Mapping

import uvloop

from kit.serve import run
from kit.settings import Settings
from services.gateway.worker.process import application


def load(environ: Mapping[str, str]) -> Settings:
    """The settings every process has; this one needs no more. Raises ValueError naming the wrong variable."""
    return Settings.from_env("gateway", environ)


def main() -> None:
    """Serves until SIGTERM."""
    run(load, application, loop_factory=uvloop.new_event_loop)


if __name__ == "__main__":
    main()
