"""``python -m benchmarks``: all figures as a table; ``--json`` as data, ``--only NAME`` one of them."""

import sys

from benchmarks import dataset, pipeline
from benchmarks.runner import run

if __name__ == "__main__":
    sys.exit(run({**pipeline.MEASURES, **dataset.MEASURES}, on_demand=["first_score_s"]))
