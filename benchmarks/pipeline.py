"""The figures of the main job: ``python benchmarks/pipeline.py --json``. What a figure means stands in its own file."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # started by its path and not as a module
    sys.path.insert(0, str(ROOT))

from benchmarks import evaluation_lag, first_score, memory, ready, rollback, training  # noqa: E402
from benchmarks.runner import Measures, run  # noqa: E402

MEASURES: Measures = {
    ("ready_s",): ready.measure,
    ("pss_mb",): memory.measure,
    ("evaluation_lag_p95_ms",): evaluation_lag.measure,
    ("rollback_ms",): rollback.measure,
    ("train_ratio", "submit_overhead_s"): training.measure,
    ("first_score_s",): first_score.measure,
}

if __name__ == "__main__":
    sys.exit(run(MEASURES, on_demand=["first_score_s"]))
