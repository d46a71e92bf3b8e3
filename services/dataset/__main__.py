"""``python -m services.dataset``: one process of the dataset service."""

from kit.serve import run
from services.dataset.app import application
from services.dataset.lean import share_memory, without_pandas
from services.dataset.settings import load


def main() -> None:
    """Serves until SIGTERM."""
    without_pandas()
    share_memory()
    run(load, application)


if __name__ == "__main__":
    main()
