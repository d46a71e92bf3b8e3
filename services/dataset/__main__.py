"""``python -m services.dataset``: one process of the dataset service."""

from kit.serve import run
from services.dataset.app import application
from services.dataset.settings import load


def main() -> None:
    """Serves until SIGTERM."""
    run(load, application)


if __name__ == "__main__":
    main()
