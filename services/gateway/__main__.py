"""``python -m services.gateway``: the control process of the gateway."""

from kit.rpc.memory import share_memory
from kit.serve import run
from services.gateway.app import application
from services.gateway.settings import GatewaySettings

#: Larger than the messages that are passed on.
LARGE_BYTES = 8 << 20


def main() -> None:
    """Serves until SIGTERM."""
    share_memory(LARGE_BYTES)
    run(GatewaySettings.from_env, application)


if __name__ == "__main__":
    main()
