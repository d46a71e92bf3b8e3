"""``python -m services.evaluator``: one process of the evaluator."""

from kit.serve import run
from services.evaluator.app import application
from services.evaluator.settings import EvaluatorSettings


def main() -> None:
    """Serves until SIGTERM."""
    run(EvaluatorSettings.from_env, application)


if __name__ == "__main__":
    main()
