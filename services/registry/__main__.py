"""``python -m services.registry``: one process of the registry."""

from kit.serve import run
from services.registry.app import application
from services.registry.settings import load


def main() -> None:
    """Serves until SIGTERM."""
    run(load, application)


if __name__ == "__main__":
    main()
