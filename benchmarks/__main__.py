"""``python -m benchmarks``: all figures as a table; ``--json`` as data, ``--only NAME`` one of them."""

import sys

from benchmarks import dataset, pipeline, planner, trainer
from benchmarks.runner import run

if __name__ == "__main__":
    measures = {**pipeline.MEASURES, **dataset.MEASURES, **planner.MEASURES, **trainer.MEASURES}
    sys.exit(run(measures, on_demand=["first_score_s", *trainer.NAMES_SWIFT]))
