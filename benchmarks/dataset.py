"""The figures of the dataset service: ``python benchmarks/dataset.py --json``; each is explained in its own file."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # started by its path and not as a module
    sys.path.insert(0, str(ROOT))

from benchmarks import dataset_ingest, dataset_memory, dataset_read, dataset_search, duplicates  # noqa: E402
from benchmarks.runner import Measures, run  # noqa: E402

MEASURES: Measures = {
    ("ingest_vs_hf",): dataset_ingest.measure,
    ("rss_ratio", "rss_mb"): dataset_memory.measure,
    ("read_mb_s", "first_batch_ms"): dataset_read.measure,
    dataset_search.NAMES: dataset_search.measure,
    ("near_recall", "near_precision", "duplicate_rows_s"): duplicates.measure,
}

if __name__ == "__main__":
    sys.exit(run(MEASURES))
