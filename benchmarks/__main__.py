"""``python -m benchmarks``: all figures as a table; ``--json`` as data, ``--only NAME`` one of them."""

import sys

from benchmarks.pipeline import main

if __name__ == "__main__":
    sys.exit(main())
