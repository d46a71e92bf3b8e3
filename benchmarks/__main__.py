"""``python -m benchmarks``: all figures as a table; ``--json`` as data, ``--only NAME`` one of them."""

import sys

from benchmarks import dataset, pipeline, planner
from benchmarks.runner import run

if __name__ == "__main__":
    sys.exit(run({**pipeline.MEASURES, **dataset.MEASURES, **planner.MEASURES}, on_demand=["first_score_s"]))
