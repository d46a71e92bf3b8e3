"""``python -m services.gateway.host``: the engine agent of this host."""

from kit.serve import run
from services.gateway.host.app import application
from services.gateway.host.settings import HostSettings


def main() -> None:
    """Serves until SIGTERM."""
    run(HostSettings.from_env, application)


if __name__ == "__main__":
    main()
