"""``python -m services.gateway``: the control process of the gateway."""

from kit.serve import run
from services.gateway.app import application
from services.gateway.settings import GatewaySettings


def main() -> None:
    """Serves until SIGTERM."""
    run(GatewaySettings.from_env, application)


if __name__ == "__main__":
    main()
