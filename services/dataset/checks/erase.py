"""Rows looked for in stored parts, and parts written anew without them, in the checking process."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from services.dataset.checks import wire
from services.dataset.checks.child import PART_READ_BYTES, READ_BYTES, Wire

if TYPE_CHECKING:
    from sluice.rows.erasing import Counted


def match(task: wire.Match, wires: Wire) -> list[Counted]:
    """Counts the rows of each part that match, and those that cannot."""
    from sluice.rows import erasing

    return [erasing.count(file, task.column, task.values) for file in _files(wires, task.parts, PART_READ_BYTES)]


def erase(task: wire.Erase, wires: Wire) -> list[Counted]:
    """Sends the parts that have such rows without them; returns how many each part had, and how many cannot match."""
    from sluice.rows import erasing

    counts = []
    for file in _files(wires, task.parts, PART_READ_BYTES):
        count = erasing.count(file, task.column, task.values)
        if count.matching:
            file.seek(0)
            wires.part(erasing.without(io.BytesIO(file.read()), task.column, task.values))
        counts.append(count)
    return counts


def sift(task: wire.Sift, wires: Wire) -> list[int]:
    """Sends each file of rows that were put aside without those that match; returns how many went from each."""
    from sluice.rows import erasing

    gone = []
    for file in _files(wires, task.parts, READ_BYTES):
        lines, count = erasing.sifted(file.read(), task.names, set(task.values))
        wires.send(wire.ASIDE, lines)
        gone.append(count)
    return gone


def _files(wires: Wire, parts: Sequence[wire.Stretch], buffer_bytes: int) -> Iterator[io.BufferedReader]:
    for part, file in wires.parts(parts, buffer_bytes=buffer_bytes):
        wires.tick(part.rows_before)
        yield file
