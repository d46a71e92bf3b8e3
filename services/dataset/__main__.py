"""``python -m services.dataset``: one process of the dataset service."""

from kit.rpc.memory import share_memory
from kit.serve import run
from services.dataset.app import application
from services.dataset.lean import without_pandas
from services.dataset.settings import load

#: Larger than the pieces of an upload and the parts of a version, which come again and again.
LARGE_BYTES = 64 << 20


def main() -> None:
    """Serves until SIGTERM."""
    without_pandas()
    share_memory(LARGE_BYTES)
    run(load, application)


if __name__ == "__main__":
    main()
