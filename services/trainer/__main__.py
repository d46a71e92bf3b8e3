"""``python -m services.trainer``: one process of the trainer."""

from kit.serve import run
from services.trainer.app import application
from services.trainer.settings import TrainerSettings


def main() -> None:
    """Serves until SIGTERM."""
    run(TrainerSettings.from_env, application)


if __name__ == "__main__":
    main()
