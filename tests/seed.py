"""The seed of everything that tests of the long tier draw; `SEED=…` in the environment repeats a run."""

import os

SEED = int(os.environ.get("SEED", "7"))
