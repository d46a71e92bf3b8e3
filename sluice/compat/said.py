"""What a script is told while it waits, through logging, as transformers does; it knows no job."""

import logging
import sys

log = logging.getLogger("sluice.compat")


def say(sentence: str) -> None:
    """One line on stderr, or wherever the script has its logging go."""
    if not logging.root.handlers and not log.handlers:
        log.addHandler(logging.StreamHandler(sys.stderr))
        log.setLevel(logging.INFO)
    log.info(sentence)
