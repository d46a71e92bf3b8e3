"""``python -m services.gateway.worker``: one data-path worker."""

import uvloop

from kit.serve import run
from services.gateway.worker.process import application
from services.gateway.worker.settings import WorkerSettings


def main() -> None:
    """Serves until SIGTERM."""
    run(WorkerSettings.from_env, application, loop_factory=uvloop.new_event_loop)


if __name__ == "__main__":
    main()
