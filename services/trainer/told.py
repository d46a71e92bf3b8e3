"""The lines in which a recipe tells its progress: those that can be read, and their figures; it judges none of them.

A recipe may be anybody's: no line of it ends who reads, and one that cannot be read is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, BinaryIO

MAX_LINE_BYTES = 1 << 20
MAX_NAME = 128
#: Keys of a line that are no figures.
ABOUT = ("time", "kind", "step", "total_steps", "message")

Line = dict[str, Any]


def read_lines(file: BinaryIO) -> Iterator[Line | None]:
    """Each whole line from where ``file`` stands; None for one that cannot be read or is longer than MAX_LINE_BYTES.

    What lacks its end is being written, and is left for another time.
    """
    while line := file.readline(MAX_LINE_BYTES):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES)
        if not rest:
            return
        yield _parsed(line) if line.endswith(b"\n") else None


def figures_of(line: Line) -> dict[str, float]:
    """The finite numbers of a line by name, but for what it is about."""
    found = {}
    for name, value in line.items():
        if name in ABOUT or len(name) > MAX_NAME or not name.isprintable():  # half of a surrogate pair is not
            continue
        number = _number(value)
        if math.isfinite(number):
            found[name] = number
    return found


def whole(value: object) -> int | None:
    """A count as the contract can say it; None for anything else."""
    return value if isinstance(value, int) and 0 <= value < 1 << 62 else None


def _parsed(line: bytes) -> Line | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):  # half a line, of a disk that was full; or brackets without end
        return None
    return found if isinstance(found, dict) else None


def _number(value: object) -> float:
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # an int may be larger than any float
        return math.inf
